"""Files that are whole or not there: written beside their place, brought to the disk, and moved there in one step. And
files that are read: regular ones only, because a pipe would be waited for."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from system.errors import UserError


def regular(path: Path) -> os.stat_result:
    """The size and times of a regular file, or of the one that a link leads to. Raises UserError for anything else."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} cannot be read: {reason}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is no regular file; folders, pipes, sockets and devices are not read")
    return status


def read(path: Path) -> bytes:
    """The content of a regular file. Raises UserError where it cannot be read."""
    regular(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


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
