"""Who is there: the processes that torchrun has started this time, told apart from those of the times before.

torchrun keeps one store through all its restarts, in which processes find each other; what those wrote that are dead by
now would be taken for word of the living (pytorch/pytorch#135712).
"""

import hashlib
import time
import uuid
from datetime import timedelta

from torch.distributed import PrefixStore, Store

LONGEST_PAUSE = 0.5  # seconds


def assembled(store: Store, rank: int, size: int, patience: timedelta) -> Store:
    """A part of the store for those alone that are there now, when all of them are. Raises RuntimeError where they do
    not come."""
    own, pause, end = uuid.uuid4().hex.encode(), 0.01, time.monotonic() + patience.total_seconds()
    store.set(f"here/{rank}", own)
    while time.monotonic() < end:
        if rank == 0:  # whoever has written there, dead or alive
            store.set("roll", b" ".join(store.get(f"here/{number}") for number in range(size)))
        roll = store.get("roll").split()
        if len(roll) == size and roll[rank] == own:
            name = hashlib.sha256(b"".join(roll)).hexdigest()
            store.set(f"{name}/{rank}", b"alive")  # which the dead do not say, as their rolls were others
            if rank == 0 and store.check([f"{name}/{number}" for number in range(size)]):
                store.set(f"{name}/all", b"alive")
            if store.check([f"{name}/all"]):
                return PrefixStore(name, store)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    raise RuntimeError(f"after {patience.seconds} seconds some have not come")
