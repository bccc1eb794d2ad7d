"""Signals as requests: the work is stopped where it can be taken up again.

Ctrl-C, a closed terminal (SIGHUP), SIGTERM, and SIGUSR1 and SIGUSR2, which batch schedulers send ahead of the end.
"""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")  # not every system has all of them
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


class Stopped(Exception):
    """Work was stopped by a signal; `status`, 128 + its number, is what the process is to end with."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class Stop:
    """The request to stop, if there was one."""

    def __init__(self) -> None:
        self.number: int | None = None  # of the first signal

    def check(self) -> None:
        """Raise `Stopped` if the work is to stop."""
        if self.number is not None:
            raise Stopped(self.number)

    def between(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, as long as the work is not to stop."""
        for item in items:
            self.check()
            yield item


@contextmanager
def stoppable() -> Iterator[Stop]:
    """While open, signals are noted instead of ending the process. The second SIGINT ends it at once."""
    stop = Stop()

    def note(number: int, _: FrameType | None) -> None:
        if stop.number is not None and number == signal.SIGINT:
            os._exit(128 + number)
        stop.number = number if stop.number is None else stop.number

    heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores SIGHUP
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
