"""What shows the log of a run: `curves.png`, and TensorBoard's files."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from checkpoints import CURVES, RunFiles
from reports import plots, scalars
from system import world
from system.errors import UserError


class Display:
    """Shows the log of a run in its folder. Where that cannot be done, `tell` says so, once, and the run goes on."""

    def __init__(
        self, title: str, files: RunFiles, evaluated_name: str, tensorboard: bool, tell: Callable[[str], None]
    ) -> None:
        self.title, self.files, self.evaluated_name, self.tell = title, files, evaluated_name, tell
        self.scalars = scalars.Scalars(files.folder / "tensorboard") if tensorboard else None
        self.due = 0.0  # when curves may be drawn again
        self.unmade: set[str] = set()  # of these, the user was told

    @world.first_only
    def show(self, log: Sequence[Mapping[str, Any]], last: bool) -> None:
        """Write the rows that are new for TensorBoard, and draw all of them: after the `last` epoch in any case, before
        it in a twentieth of the time at most, because epochs may be quicker than a picture."""
        if self.scalars:
            with self._going_on_without("scalars"):
                self.scalars.write(log)
        start = time.monotonic()
        if start < self.due and not last:
            return
        with self._going_on_without("curves"):
            plot = plots.draw_run(self.title, log, tuple(self.files.exits), self.evaluated_name)
            self.files.write(CURVES, plot)
        now = time.monotonic()
        self.due = now + 19 * (now - start)

    @contextmanager
    def _going_on_without(self, what: str) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            if what not in self.unmade:
                self.tell(f"{error}; the run goes on")
            self.unmade.add(what)

    def close(self) -> None:
        """End the writer of scalars."""
        if self.scalars:
            self.scalars.close()
