"""The numbers of the log for TensorBoard, under tags that put what belongs together into one group."""

import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from system.errors import UserError, reason

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

COLUMN = re.compile(r"(?P<pictures>train|test|validation)_(?P<what>loss|error)(?P<exit>_\d+)?")
NEVER = 10**9  # seconds after which the writer would flush by itself; it is flushed as rows come


def require_package() -> None:
    """Raise UserError where TensorBoard's package is missing, or does not work with the others that are there."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except Exception as error:  # protobuf has errors of its own for versions that do not fit
        raise UserError(f"--tensorboard needs a package: pip install -U tensorboard ({reason(error)})") from error


def tag(column: str) -> str:
    """What a column of the log is called in TensorBoard: `test_error_19` → `error/test_19`."""
    if found := COLUMN.fullmatch(column):
        return f"{found['what']}/{found['pictures']}{found['exit'] or ''}"
    what, _, part = column.partition("_")
    return f"seconds/{part or 'all'}" if what == "seconds" else column


class Scalars:
    """Event files in a folder: each row of a log once, at its epoch, however often the run is stopped and goes on.

    A run that goes on takes back what its earlier files say and writes the whole log, because they may lack epochs (a
    disk was full, or nobody wanted them), or have one that was lost with the state.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.written = folder, 0  # rows
        self._writer: SummaryWriter | None = None

    def write(self, log: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows that are not written yet. Raises UserError where that fails; the next time the whole log is
        written, because the writer works in a thread and tells late what it could not write."""
        try:
            self._writer = self._writer or self._opened()
            for row in log[self.written :]:
                for column, value in row.items():
                    if column != "epoch" and value is not None:
                        self._writer.add_scalar(tag(column), value, row["epoch"])
            self._writer.flush()
        except Exception as error:  # its file systems are many, and have errors of their own
            self._writer, self.written = None, 0
            said = getattr(error, "strerror", None) or error
            raise UserError(f"{self.folder} could not be written: {said}") from error
        self.written = len(log)

    def close(self) -> None:
        """End the writer; what it was given is written."""
        if self._writer:
            with suppress(Exception):
                self._writer.close()

    def _opened(self) -> "SummaryWriter":
        from torch.utils.tensorboard import SummaryWriter

        if self.folder.is_symlink():
            raise UserError("it is a link")
        threading.excepthook = _unless_told
        return SummaryWriter(self.folder, purge_step=1, flush_secs=NEVER)


def _unless_told(failure: threading.ExceptHookArgs) -> None:
    """A traceback of a thread that failed; not of the writer's, whose failures `flush` raises."""
    if not type(failure.thread).__module__.startswith("tensorboard"):
        threading.__excepthook__(failure)
