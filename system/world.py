"""The processes that train together: how many they are, which one this is, and what they tell each other.

`torchrun` starts them and tells each its place in the environment; PyTorch connects them. A program that was started
alone is a world of one, in which nothing is told and nothing waits. Nothing else reads ranks from the environment.
Every function that tells something is to be called by all processes, in the same order. Free of PyTorch until the
processes are joined.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from system.errors import UserError, reason

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.distributed import ProcessGroup

PATIENCE = timedelta(minutes=3)  # a process that is not heard of for so long is given up
PREPARING = timedelta(days=1)  # to download or to decode pictures
GRACE = 5.0  # seconds in which torchrun ends this process, if it was another one on this host that failed
AGREEING = 1.0  # seconds between two steps at which the processes ask each other whether to stop

Item = TypeVar("Item")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


@dataclass(frozen=True)
class _Place:
    """Where this process stands among the others. The groups are those in which processes tell each other things
    through the CPU; in the patient one they wait for each other as long as pictures may take to be read."""

    rank: int = 0
    size: int = 1
    host_rank: int = 0
    host_size: int = 1
    group: "ProcessGroup | None" = None
    patient_group: "ProcessGroup | None" = None


_place = _Place()


def rank() -> int:
    """The number of this process, from 0."""
    return _place.rank


def size() -> int:
    """How many processes there are."""
    return _place.size


def is_first() -> bool:
    """Whether this is the process that writes, prints, and knows what a run left."""
    return _place.rank == 0


def host_rank() -> int:
    """The number of this process among those on its host, from 0."""
    return _place.host_rank


def host_size() -> int:
    """How many processes there are on this host."""
    return _place.host_size


@contextmanager
def joined() -> Iterator[None]:
    """Find the other processes, if `torchrun` started several, and belong to them while open; all but the first are
    silent. Raises UserError where they are not found, or where one is lost.
    """
    global _place
    if not _started_with_others():
        yield
        return
    from torch import distributed

    _place = _connected()
    try:
        with nullcontext() if is_first() else _silent():
            yield
    except RuntimeError as error:
        if not is_loss(error):
            raise
        time.sleep(GRACE)
        text = f"another process was lost; --resume auto goes on from the last state ({reason(error)})"
        raise UserError(text) from error
    except SystemExit:  # all processes stop, or are gone
        with suppress(RuntimeError):
            distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()
    _place = _Place()


def _connected() -> _Place:
    """Find the other processes. Raises UserError where they are not found."""
    from torch import cuda, distributed
    from torch.distributed.rendezvous import rendezvous

    from system import rollcall

    try:
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        store = rollcall.assembled(store, rank, size, PATIENCE)
        # What NCCL notes of an attempt that failed stays in torchrun's store, and would end the next attempt.
        os.environ.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "0")
        backend = "cpu:gloo,cuda:nccl" if cuda.is_available() and distributed.is_nccl_available() else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        groups = [distributed.new_group(backend="gloo", timeout=timeout) for timeout in (PATIENCE, PREPARING)]
    except RuntimeError as error:
        raise UserError(f"the other processes cannot be reached: {error}") from error
    host = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    return _Place(rank, size, *host, *groups)


@contextmanager
def _silent() -> Iterator[None]:
    """While open, what is printed goes nowhere."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def is_loss(error: RuntimeError) -> bool:
    """Whether this is what PyTorch says when another process ends or is not heard of."""
    if size() == 1:
        return False
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error) or "NCCL" in str(error)


def first_only(work: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Work that the first process does for all, who need not wait for it."""

    @wraps(work)
    def done_once(*arguments: Arguments.args, **options: Arguments.kwargs) -> None:
        if is_first():
            work(*arguments, **options)

    return done_once


def broadcast(find: Callable[[], Result]) -> Result:
    """What the first process finds, for all: tensors on the CPU, plain values, and containers of these. (PyTorch's
    `broadcast_object_list` would unpickle whatever comes.)"""
    if size() == 1:
        return find()
    import torch

    content = BytesIO()
    if is_first():
        torch.save(find(), content)
    length = torch.tensor(content.tell())
    torch.distributed.broadcast(length, 0, _place.group)
    if is_first():
        message = torch.frombuffer(content.getbuffer(), dtype=torch.uint8)
    else:
        message = torch.empty(length.item(), dtype=torch.uint8)
    torch.distributed.broadcast(message, 0, _place.group)
    return torch.load(BytesIO(message.numpy().data), map_location="cpu", weights_only=True)


def first_of_host(find: Callable[[], Result]) -> Result | None:
    """What the first process of each host finds, which may take it a day; None in the others, which wait for it."""
    found = find() if host_rank() == 0 else None
    _meet(_place.patient_group, PREPARING)
    return found


def broadcast_on_host(found: Result | None) -> Result:
    """What the first process of each host has found, for all on its host: as with `broadcast`, but their tensors are in
    memory once. A process that writes into one has a copy of what it changes."""
    if size() == 1:
        return found
    if not hasattr(os, "memfd_create"):  # which only Linux has; elsewhere each process has its own
        return broadcast(lambda: found)
    import torch

    memory = os.memfd_create("shared")  # a file without a name or a disk, gone when no process has it any more
    if host_rank() == 0 and host_size() > 1:
        torch.save(found, f"/proc/self/fd/{memory}")
    places = list(torch.empty(size(), 2, dtype=torch.int64))
    torch.distributed.all_gather(places, torch.tensor([os.getpid(), memory]), _place.group)
    process, number = places[rank() - host_rank()].tolist()  # torchrun numbers the processes of a host in a row
    if host_size() > 1:
        found = torch.load(f"/proc/{process}/fd/{number}", mmap=True, weights_only=True)
    _meet(_place.group, PATIENCE)
    os.close(memory)
    return found


def _meet(group: "ProcessGroup | None", patience: timedelta) -> None:
    """Wait until every process is here. The first process waits for `patience`, the others for as long as their group
    lets them: its timeout is to be the same."""
    if size() > 1:
        from torch import distributed

        distributed.monitored_barrier(group, patience)


def own(items: Sequence[Item]) -> Sequence[Item]:
    """The part of a sequence that this process takes: parts differ in length by one at most."""
    return items[rank() :: size()]


def turns(items: Iterable[Item]) -> Iterator[Sequence[Item]]:
    """Deal the items out, one to each process in a turn. Yields what this process gets in each turn: one item, or none
    where they have run out, so that every process has as many turns."""
    items = iter(items)
    while turn := list(islice(items, size())):
        yield own(turn)


def joint(model: "nn.Module") -> "nn.Module":
    """The model, its gradients the means over all processes."""
    if size() == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel

    with warnings.catch_warnings(action="ignore"):  # newer versions have another word for `broadcast_buffers`
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


def combine(sums: "Sequence[Tensor]", means: "Sequence[Tensor]", part: float) -> None:
    """In one message, replace `sums` by their sums over all processes, and `means` by their means, in which this
    process counts for a `part`; the parts of all processes are 1 together."""
    if size() == 1:
        return
    import torch

    torch._foreach_mul_(means, part)
    tensors = [*sums, *means]
    message = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
    torch.distributed.all_reduce(message)
    flat = message.split([tensor.numel() for tensor in tensors])
    pieces = [piece.view_as(tensor) for piece, tensor in zip(flat, tensors, strict=True)]
    for tensor, sum_of_all in zip(sums, pieces, strict=False):
        tensor.copy_(sum_of_all)
    torch._foreach_copy_(means, pieces[len(sums) :])  # there are hundreds, which a GPU would be told one by one


def total(tensor: "Tensor") -> "Tensor":
    """The sum of a tensor over all processes, in place and exact for whole numbers."""
    if size() > 1:
        from torch import distributed

        distributed.all_reduce(tensor)
    return tensor


def divided(
    items: "Sequence[Tensor]",
    cost: "Callable[[Tensor], int]",
    work: "Callable[[list[Tensor]], list[Tensor]]",
    dtype: "torch.dtype",
) -> "list[Tensor]":
    """What `work` makes of tensors: others of the same shapes, in `dtype`. Each process works on some, in proportion to
    what they cost, and leaves zeros for the rest; a sum over all processes then gives everybody all of them. Its
    message is as long as the items are, however many processes there are."""
    if size() == 1:
        return work(list(items))
    import torch

    loads, shares = [0] * size(), [[] for _ in range(size())]
    for number in sorted(range(len(items)), key=lambda number: -cost(items[number])):
        lightest = loads.index(min(loads))
        loads[lightest] += cost(items[number])
        shares[lightest].append(number)
    lengths = [item.numel() for item in items]
    message = items[0].new_zeros(sum(lengths), dtype=dtype)
    pieces = [piece.view(item.shape) for piece, item in zip(message.split(lengths), items, strict=True)]
    mine = shares[rank()]
    for number, made in zip(mine, work([items[number] for number in mine]) if mine else (), strict=True):
        pieces[number].copy_(made)
    torch.distributed.all_reduce(message)
    return pieces


def highest(number: int) -> int:
    """The highest number that any process has."""
    if size() == 1:
        return number
    import torch

    message = torch.tensor(number)
    torch.distributed.all_reduce(message, torch.distributed.ReduceOp.MAX, _place.group)
    return int(message)


def draw_apart(seed: int, epoch: int, index: int) -> None:
    """Let every process draw random numbers of its own at a step of a training, the same whenever it comes to it."""
    if size() > 1:
        import numpy as np
        import torch

        sequence = np.random.SeedSequence([seed, epoch, index, rank()])
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))


class Agreement:
    """Steps at which all processes ask each other something: the same ones in each, about a second apart."""

    def __init__(self) -> None:
        self._steps, self._left, self._since = 1, 1, time.monotonic()

    def due(self) -> bool:
        """To be asked after every step: whether this is one. In a world of one each is."""
        if size() == 1:
            return True
        self._left -= 1
        if self._left > 0:
            return False
        now = time.monotonic()
        wanted = int(self._steps * AGREEING / max(now - self._since, 1e-3))
        self._steps = highest(max(1, min(wanted, 2 * self._steps)))
        self._left, self._since = self._steps, now
        return True


def place_in_words() -> str:
    """` (rank 3)` where torchrun started this process as one of several; nothing where it was started alone."""
    return f" (rank {os.environ['RANK']})" if _started_with_others() else ""


def _started_with_others() -> bool:
    """Whether torchrun started this process as one of several. What other launchers say in the same words counts for
    nothing."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"
