"""Where a report may be written: in the place of another report, and of nothing that would be missed."""

from collections.abc import Sequence
from pathlib import Path

from models.names import EXIT_GLOB
from system import files
from system.errors import UserError

CALIBRATED = POLICY, SWEEP, PLOT = "policy.json", "adaptive.csv", "adaptive.png"  # what calibrate.py leaves
# Files that would be missed; the folder of a run, even before its first test, or of a bundle, is known by others in it.
KEPT = {
    "a record of the run": (
        ("opt.json", "log.csv", "README.md", "curves.png", *CALIBRATED),
        (EXIT_GLOB, "opt.json", "latest.pt"),
    ),
    "a part of the bundle": (("card.json", POLICY, "run.py"), ("segment-*.onnx",)),
}
PLOTTED = b"Matplotlib"  # among the first bytes of every plot


def check(path: Path) -> None:
    """Raise UserError, before any work is done for a report, where its file cannot be written, or would take the place
    of a record of a run, a part of a bundle, or a PNG picture that is no plot."""
    files.check_target(path)
    for what, (kept, known_by) in KEPT.items():
        if path.name in kept and _has(path.parent, known_by):
            raise UserError(f"{path} is {what} in {path.parent}/; give another file")
    if path.suffix.lower() == ".png" and _is_other_picture(path):
        raise UserError(f"{path} is a picture and no plot of this program; give another file")


def is_kept(folder: Path) -> bool:
    """Whether a folder is that of a run or a bundle, in which no policy is replaced by that for another network."""
    return any(_has(folder, known_by) for _, known_by in KEPT.values())


def _has(folder: Path, patterns: Sequence[str]) -> bool:
    return any(any(folder.glob(pattern)) for pattern in patterns)


def _is_other_picture(path: Path) -> bool:
    """Whether there is something, and no plot. A link does not count: it is replaced itself, not what it leads to."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(1000)
    return bool(start) and PLOTTED not in start
