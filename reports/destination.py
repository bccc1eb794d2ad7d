"""Where a report may be written: in the place of another report, and of nothing that would be missed."""

from pathlib import Path

from models.names import EXIT_FILES
from system import files
from system.errors import UserError

FOLDERS = (EXIT_FILES, "opt.json", "latest.pt", "segment-*.onnx")  # a run's, even before its first test, or a bundle's
RECORDS = ("opt.json", "log.csv", "README.md", "curves.png", "policy.json", "adaptive.csv", "adaptive.png")
PLOTTED = b"Matplotlib"  # among the first bytes of every plot


def check(path: Path) -> None:
    """Raise UserError, before any work is done for a report, where its file cannot be written, or would take the place
    of a record of a run, or of a PNG picture that is no plot."""
    files.check_target(path)
    if path.name in RECORDS and has_records(path.parent):
        raise UserError(f"{path} is a record of the run in {path.parent}/; give another file")
    if path.suffix.lower() == ".png" and _is_other_picture(path):
        raise UserError(f"{path} is a picture and no plot of this program; give another file")


def has_records(folder: Path) -> bool:
    """Whether a folder is that of a run, or a bundle of export.py, in which a policy and others are not replaced."""
    return any(any(folder.glob(pattern)) for pattern in FOLDERS)


def _is_other_picture(path: Path) -> bool:
    """Whether there is something, and no plot. A link does not count: it is replaced itself, not what it leads to."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(1000)
    return bool(start) and PLOTTED not in start
