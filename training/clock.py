"""The time that an epoch takes, and the parts of the work that it goes into."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from formats.log_file import MAX_SECONDS, PARTS
from system.strict import is_number


class Clock:
    """The seconds of an epoch so far, by the part of the work; those outside of `on` are `other`. `now` gives the time
    in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._part = "other"
        self.start()

    @classmethod
    def restored(cls, saved: Any) -> "Clock":
        """A clock that goes on from what `seconds` gave; older versions saved a sum, which is taken for training.
        Raises ValueError where it is neither."""
        seconds = {**dict.fromkeys(PARTS, 0.0), "training": saved} if type(saved) in (int, float) else saved
        if type(seconds) is not dict or seconds.keys() != set(PARTS):
            raise ValueError("seconds are not those of the parts of an epoch")
        if not all(is_number(value, 0, MAX_SECONDS) for value in seconds.values()):
            raise ValueError("seconds is no time")
        clock = cls()
        clock._seconds = dict(seconds)
        return clock

    def start(self) -> None:
        """Count from now on, not since this clock was made."""
        self._since = self._now()

    def seconds(self) -> dict[str, float]:
        """What each part has taken, whether the run was interrupted or not."""
        now = self._now()
        self._seconds[self._part] += now - self._since
        self._since = now
        return dict(self._seconds)

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Count the time in the block for a part."""
        self.seconds()
        before, self._part = self._part, part
        try:
            yield
        finally:
            self.seconds()
            self._part = before
