"""The processors of this host: how many a program may use, and whether its threads have one each."""

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from system import containers

TASKS = Path("/proc/self/task")  # where Linux has what it counts of each thread
PAUSE = 30.0  # seconds between two looks at these
MUCH = 0.2  # of the time. Two threads on two processors waited for 2 % of it, beside a busy program for 35 % and more
QUOTAS = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))  # of version 2 and 1 of control groups


def crowded(threads: int, processes: int) -> str | None:
    """What to tell a user whose program computes in so many processes on this host, each in so many threads, if that
    is more than there are processors; None if it is not.

    Loader workers do not count: they sleep for most of the time. Other programs are noticed by `Waiting`.
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


def usable() -> int:
    """How many processors this process may use."""
    return min(_allowed(1)[0], *_quotas())


class Waiting:
    """How long the threads of this process, which compute together, wait for a processor because others have it.

    The system counts that for each of them. A load average would not tell: it counts programs of idle priority, too,
    which make way, those that have just ended, and in a container those of the whole host. `now` gives the time in
    seconds.
    """

    def __init__(self, threads: int, now: Callable[[], float] = time.monotonic) -> None:
        self._threads, self._now = threads, now
        self._told = threads < 2  # one thread loses its share of the time, and no more
        self._look()

    def advice(self) -> str | None:
        """What to tell the user, once, where the last look is long ago and threads have waited much since; None
        otherwise. To be asked all the time."""
        if self._told or self._now() < self._due:
            return None
        before, now = self._before, self._look()
        if before is None or now is None:
            return None
        computed, waited = (later - earlier for later, earlier in zip(now, before, strict=True))
        part = waited / max(computed + waited, 1)
        if part <= MUCH:
            return None
        self._told = True
        return (
            f"other programs, or the quota of a container, take the processors: for {100 * part:.0f} % of the time the "
            f"{self._threads} threads of this run waited for one, and so for one another; fewer --cpuThreads may be "
            "quicker"
        )

    def _look(self) -> tuple[int, int] | None:
        self._before, self._due = _counted(), self._now() + PAUSE
        return self._before


def _counted() -> tuple[int, int] | None:
    """The nanoseconds that all threads have computed, and that they have waited for a processor; None where the system
    does not count, and where a thread has just ended."""
    try:
        counts = [(task / "schedstat").read_text().split() for task in TASKS.iterdir()]
        return sum(int(count[0]) for count in counts), sum(int(count[1]) for count in counts)
    except (OSError, ValueError, IndexError):
        return None


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
