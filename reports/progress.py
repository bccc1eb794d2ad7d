"""How far a run has come: a bar on a terminal; elsewhere, in a file or a log, a plain line once a minute."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tqdm import tqdm

from models.metrics import Result
from reports.tables import exit_errors
from system.output import tell

BAR = "|{bar:12}| {desc}"
PAUSE_ON_TERMINAL, PAUSE_ELSEWHERE = 1.0, 60.0  # seconds between two looks at the result; each waits for the device


class _Mark(NamedTuple):
    """A moment in seconds, and how many training pictures of the run were done then."""

    seconds: float
    pictures: int

    def pace(self, now: "_Mark") -> float:
        """Pictures a second since this moment; 0 where no time has passed."""
        passed = now.seconds - self.seconds
        return (now.pictures - self.pictures) / passed if passed > 0 else 0.0


class Progress:
    """Tells on standard error how far a run of `epochs` times `pictures` training pictures has come, of which `done`
    are behind: by a bar on a terminal, elsewhere by a line about once a minute. `clock` gives the time in seconds."""

    def __init__(
        self,
        pictures: int,
        epochs: int,
        done: int,
        exits: Sequence[int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pictures, self.epochs, self.done, self.exits, self.clock = pictures, epochs, done, exits, clock
        self.on_terminal = sys.stderr.isatty()
        self.pause = PAUSE_ON_TERMINAL if self.on_terminal else PAUSE_ELSEWHERE
        self.looked = clock()
        self.doing, self.before = "the beginning", 0
        # Paces are measured from the end of a first step on, because that step waits for loader workers and compilers.
        self.run_began: _Mark | None = None
        self.epoch_began: _Mark | None = None
        self.bar = tqdm(
            total=pictures * epochs,
            initial=done,
            bar_format=BAR,
            delay=1e-9,  # nothing is drawn before there is something to say
            leave=False,
            disable=not self.on_terminal,
            dynamic_ncols=True,
        )

    def epoch(self, epoch: int, what: str) -> None:
        """Name the epoch (counted from 0) and what is being done."""
        self.doing, self.before = f"epoch {epoch + 1}/{self.epochs} {what}", epoch * self.pictures
        self.epoch_began = None
        self.bar.set_description_str(self.doing)

    def step(self, pictures: int, result: Callable[[], Result]) -> None:
        """Move on by a batch. `result`, which gives the means of the epoch so far, is called only where they are
        shown."""
        self.done += pictures
        now = _Mark(self.clock(), self.done)
        self.epoch_began = self.epoch_began or now
        self.run_began = self.run_began or now
        if now.seconds - self.looked >= self.pause:
            self._show(result())
        self.bar.update(pictures)

    def _show(self, result: Result) -> None:
        self.looked = self.clock()
        text = self._sentence(_Mark(self.looked, self.done), result)
        if self.on_terminal:
            self.bar.set_description_str(text)  # drawn at once: tqdm itself goes by the time of day
        else:
            tell(text)

    def _sentence(self, now: _Mark, result: Result) -> str:
        """What matters most comes first, because a narrow terminal cuts the end off."""
        parts = [f"{self.doing}, {100 * (self.done - self.before) / self.pictures:.0f} % done"]
        if pace := self.run_began.pace(now):  # of the whole run, as the time that is left has tests in it, too
            parts.append(f"about {duration((self.pictures * self.epochs - self.done) / pace)} left")
        parts.append(f"loss {result.loss:.3f}, error {exit_errors(self.exits, result.errors)}")
        if pace := self.epoch_began.pace(now):
            parts.append(f"{pace:,.0f} images/s")
        return ", ".join(parts)

    def line(self, text: str) -> None:
        """Print a line on standard output, above the bar."""
        self.bar.write(text, file=sys.stdout)
        sys.stdout.flush()

    def tell(self, text: str) -> None:
        """Say something on standard error, above the bar."""
        self.bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()


def duration(seconds: float) -> str:
    """A time in its two largest units: `45 s`, `12 min`, `2 h 13 min`, `3 d 4 h`."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"
