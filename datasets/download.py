"""torchvision's data sets, downloaded on first use, with one clear error where that cannot be done."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from system.errors import UserError

try:
    import fcntl
except ImportError:  # not a POSIX system: downloads are not kept apart
    fcntl = None

LOCK_FILE = ".downloading"


def fetch(source: type, root: Path, files: str, **options: Any) -> Any:
    """`source(root, **options)`, downloading what is missing; torchvision checks every file's MD5 sum.

    Raises UserError that names the `files`, where they were looked for, and what else can be done.
    """
    try:
        return source(root, download=False, **options)
    except RuntimeError:  # torchvision's word for "missing or corrupted"
        pass
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root):  # who has waited for another finds what that has downloaded
            return source(root, download=True, **options)
    except (OSError, RuntimeError) as error:
        name = source.__name__
        raise UserError(
            f"{name} is not there and could not be downloaded ({error}): {files} missing or damaged in {root}/. "
            f"Put the file there, name its folder with --dataDir, unpack pictures into "
            f"{root / name.lower()}/{{train,test}}/<class>/, or try DIGITS, which needs no download"
        ) from error


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """While open, no other program downloads into the folder, whose file this one would write into; waits for one that
    does. The lock file stays: who removed it would let a third one in beside one that waits."""
    with (root / LOCK_FILE).open("w") as file:
        if fcntl:
            with suppress(OSError):  # a file system without locks
                fcntl.lockf(file, fcntl.LOCK_EX)
        yield
