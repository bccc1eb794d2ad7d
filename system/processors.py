"""The processors of this host: how many a program may use, and whether its threads have one each."""

import math
import os
from collections.abc import Iterator

from system import containers

QUOTAS = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))  # of version 2 and 1 of control groups


def crowded(threads: int, processes: int) -> str | None:
    """What to tell a user whose program computes in so many processes on this host, each in so many threads, if that
    is more than there are processors; None if it is not.

    Loader workers do not count: they sleep for most of the time. Nor do other programs: a load average counts those of
    idle priority, too, which make way, and those that have just ended.
    """
    own, together = (min(count, *_quotas()) for count in _allowed(processes))
    if threads <= own and threads * processes <= together:
        return None
    each = f"{threads} thread{'s' * (threads > 1)}"
    who = each if processes == 1 else f"{processes} processes of {each} each"
    best = min(own, together // processes)
    advice = f"give --cpuThreads {best}" if best else f"start no more than {together}, with --cpuThreads 1"
    share = f"{together} processor{'s' * (together > 1)}"
    return f"{who} compute on {share}, where threads wait for one another: that is slow; {advice}"


def _allowed(processes: int) -> tuple[int, int]:
    """How many processors this process may run on, and how many it and the others of this host, which the same launcher
    started, may: each may be bound to some of them."""
    try:
        own = os.sched_getaffinity(0)
        return len(own), len(own | os.sched_getaffinity(os.getppid()) if processes > 1 else own)
    except (AttributeError, OSError):  # not Linux, or the launcher has gone
        return (os.cpu_count() or 1,) * 2


def _quotas() -> Iterator[int]:
    """Of how many processors the time may be used, by each control group that this process is in."""
    yield os.cpu_count() or 1
    for group in containers.groups("cpu"):
        for files in QUOTAS:
            try:
                quota, period = map(int, " ".join((group / file).read_text() for file in files).split())
            except (OSError, ValueError):  # no such group, or one without a quota, which is the word max
                continue
            if quota > 0:
                yield max(1, math.ceil(quota / period))
