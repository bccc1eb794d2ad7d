"""Files that are whole or not there: written beside their place, brought to the disk, and moved there in one step."""

import os
from contextlib import suppress
from pathlib import Path

from system.errors import UserError


def write(path: Path, content: bytes | memoryview, keep: Path | None = None) -> None:
    """Put a file in its place, whole and durably, and the one that was there at `keep`, if that is given. A run has its
    folder to itself, so one temporary name will do. Raises UserError where the disk is full or the folder gone."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep and path.exists():
            path.replace(keep)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UserError(f"{path} could not be written: {error.strerror}; what was saved before is untouched") from error


def check_target(path: Path) -> None:
    """Raise UserError, before any work is done for it, where a file cannot be written: its folder is missing or may not
    be written into, or there is something else in its place."""
    if not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}; make it, or give another file")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no regular file and is not replaced by one; give another")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path} cannot be written: {path.parent} is read-only; give another folder")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
