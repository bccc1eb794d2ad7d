"""SIGINT and SIGTERM as requests: the work is stopped where it can be taken up again."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """Work was stopped by a signal; `status` is what the process is to end with: 130 or 143."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """While open, signals are noted, and the function given raises `Stopped` for a noted one. The second SIGINT ends
    the process at once."""
    noted: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if noted and number == signal.SIGINT:
            os._exit(128 + number)
        noted.append(number)

    def check() -> None:
        if noted:
            raise Stopped(noted[0])

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
