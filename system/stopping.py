"""Signals as requests: the work is stopped where it can be taken up again.

Ctrl-C, a closed terminal (SIGHUP), SIGTERM, and SIGUSR1 and SIGUSR2, which batch schedulers send ahead of the end.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from system import world
from system.errors import Stopped, signals

Item = TypeVar("Item")
AGAIN = 1.0  # seconds; a SIGINT that comes later is a second Ctrl-C
SIGNALS = signals("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


class Stop:
    """The request to stop, if there was one."""

    def __init__(self) -> None:
        self.number: int | None = None  # of the first signal
        self._interrupted: float | None = None  # when the first SIGINT came
        self._breaking = False

    def note(self, number: int, _: FrameType | None) -> None:
        """Handle a signal. A second SIGINT ends the process at once. One within `AGAIN` counts as the first, because
        some programs send it to a process and to its group."""
        if number == signal.SIGINT:
            now = time.monotonic()
            self._interrupted = self._interrupted or now
            if now - self._interrupted > AGAIN:
                os._exit(128 + number)
        self.number = number if self.number is None else self.number
        if self._breaking:
            self._breaking = False  # one is enough: what follows saves what there is
            self.check()

    def check(self) -> None:
        """Raise `Stopped` if the work is to stop, in all processes if it is to stop in one."""
        number = world.highest(self.number or 0)
        if number:
            raise Stopped(number)

    @contextmanager
    def breaking(self) -> Iterator[None]:
        """For work that waits, or that can be done anew: while open, a signal raises `Stopped` wherever the work is.
        Several processes would wait for the one that it raises it in; they stop together, at a `check`."""
        if world.size() > 1:
            yield
            return
        before, self._breaking = self._breaking, True
        try:
            self.check()
            yield
        finally:
            self._breaking = before

    def awaiting(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items; the wait for each is broken off by a signal."""
        while True:
            with self.breaking():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item


@contextmanager
def stoppable() -> Iterator[Stop]:
    """While open, signals are noted instead of ending the process, and answered where the work can bear it."""
    stop = Stop()
    heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores SIGHUP
    before = {number: signal.signal(number, stop.note) for number in heard}
    try:
        yield stop
    except RuntimeError as error:
        if stop.number is None or not world.is_loss(error):
            raise
        sys.exit(128 + stop.number)  # the others were stopped, too, and did not wait for this one
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that is no Python, as a launcher may set it, cannot be put back
                signal.signal(number, handler)


@contextmanager
def unheard() -> Iterator[None]:
    """Processes that are started in here never hear of these signals: a terminal, a launcher or a batch scheduler may
    send one to all of them, while the program that they work for still needs them."""
    if not hasattr(signal, "pthread_sigmask"):  # not a POSIX system
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
