"""Where a report may be written: in the place of another report, and of nothing that would be missed."""

from pathlib import Path

from models.names import holds_exits
from system import files
from system.errors import UserError

RECORDS = ("opt.json", "log.csv", "README.md", "curves.png", "policy.json", "adaptive.csv", "adaptive.png")  # of a run
PLOTTED = b"Matplotlib"  # among the first bytes of every plot


def check(path: Path) -> None:
    """Raise UserError, before any work is done for a report, where its file cannot be written, or would take the place
    of a record of a run, or of a PNG picture that is no plot."""
    files.check_target(path)
    if path.name in RECORDS and holds_exits(path.parent):
        raise UserError(f"{path} is a record of the run in {path.parent}/; give another file")
    if path.suffix.lower() == ".png" and _is_other_picture(path):
        raise UserError(f"{path} is a picture and no plot of this program; give another file")


def _is_other_picture(path: Path) -> bool:
    """Whether there is something, and no plot. A link does not count: it is replaced itself, not what it leads to."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(1000)
    return bool(start) and PLOTTED not in start
