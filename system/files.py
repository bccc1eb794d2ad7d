"""Files that are whole or not there: written beside their place, brought to the disk, and moved there in one step. A
link in that place is replaced, not followed; only the folder may be given by a link. And files that are read: regular
ones only, because a pipe would be waited for."""

import errno
import math
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from system.errors import UserError

TEMPORARY, ENDING = ".auxresnet-", ".tmp"  # of the names of files on their way
PASSING = (errno.ESTALE, errno.EBUSY, errno.EAGAIN, errno.EINTR)  # what a network file system may say and take back
PAUSES = (0.1, 0.5, 1.0, None)  # seconds between attempts
NOT_THERE = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # of what a file system cannot do at all


def real(path: Path) -> Path:
    """Where a path leads when all links are followed, as far as they lead anywhere: `Path.resolve`, which raises
    RuntimeError before Python 3.13 for a link to itself."""
    return Path(os.path.realpath(path))


def is_folder(*parts: str) -> bool:
    """Whether there is a folder at a path; no text is too odd to ask."""
    try:
        return Path(*parts).is_dir()
    except (OSError, ValueError):  # a name that is too long or that none can be, a folder that may not be read
        return False


def near(path: Path) -> Path:
    """A path from where the user is, if it is below."""
    try:
        here = Path.cwd()
    except OSError:  # it was removed
        return path
    return path.relative_to(here) if path.is_relative_to(here) else path


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is there while open. Raises UserError where it cannot be made or written into."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        place = f" in {tempfile.tempdir}" if tempfile.tempdir else ""  # nowhere, where no folder will do
        said = error.strerror or error
        raise UserError(f"temporary files{place}: {said}; make room, or set TMPDIR to another folder") from error


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


def write(path: Path, *parts: bytes | memoryview, keep: Path | None = None, durable: bool = True) -> None:
    """Put a file in its place, whole and, if `durable`, for good, and the one that was there at `keep`, if that is
    given. Links are not followed: where one has the name of the file, it is replaced.

    Raises UserError where the disk is full or the folder gone.
    """
    try:
        _put(path, *parts, keep=keep, durable=durable)
    except OSError as error:
        raise UserError(
            f"{path} could not be written: {error.strerror}; what was saved before is still there"
        ) from error


def _put(path: Path, *parts: bytes | memoryview, keep: Path | None = None, durable: bool = True) -> None:
    """The same; raises OSError."""
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:  # a name that is there already, were it a link, would be an error
            for part in parts:
                file.write(part)
            file.flush()
            if durable:
                _sync(file.fileno())
        temporary.lstat()  # fails where another folder has taken the place of this one, whose files stay as they are
        if keep and os.path.lexists(path):
            _move(path, keep)
        _move(temporary, path)
        if durable:
            _sync_folder(path.parent)
    except BaseException:  # a signal, too
        with suppress(OSError):
            temporary.unlink()
        raise


def _temporary(path: Path) -> Path:
    """What a file or a folder is called on its way to its place."""
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}{ENDING}")


def sweep(folder: Path, before: float = math.inf) -> None:
    """Remove what writes that were cut off have left in a folder, if they did so `before` a time of its file system:
    where others write, too, a young file may still be on its way."""
    for left in folder.glob(f"{TEMPORARY}*{ENDING}"):
        with suppress(OSError):
            if left.lstat().st_mtime < before:
                left.unlink()


def _move(source: Path, target: Path) -> None:
    """Rename a file or a folder, over what is there. A network file system may refuse that for a moment, and is asked
    again. It may also say that there is no `source` because it has moved it already: then the target has its inode."""
    inode = source.lstat().st_ino
    for pause in PAUSES:
        try:
            source.replace(target)
            return
        except FileNotFoundError:
            if target.lstat().st_ino != inode:
                raise
            return
        except OSError as error:
            if error.errno not in PASSING or pause is None:
                raise
        time.sleep(pause)


def _sync(descriptor: int) -> None:
    """Bring a file or a folder to the disk, where its file system can do that."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder may be writable and not readable
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Put a new folder with files of these names in its place, whole and for good: all of them or none. An empty folder
    may be there, or a link to one. Raises UserError where that fails."""
    path = real(path)
    temporary = _temporary(path)
    try:
        temporary.mkdir()
        for name, content in contents.items():
            _put(temporary / name, content)
        _move(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"{path}{os.sep} could not be written: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_target(path: Path) -> None:
    """Raise UserError, before any work is done for it, where a file cannot be written: its folder is missing or may not
    be written into, or there is something else in its place."""
    _check_place(path)
    place = real(path.parent)  # of /dev/stdout or /dev/fd/1, which may lead to a regular file
    of_the_system = any(map(place.is_relative_to, ("/dev", "/proc"))) and not place.is_relative_to("/dev/shm")
    if of_the_system or (path.exists() and not path.is_file()):
        raise UserError(f"{path} is no regular file and is not replaced by one; give another")


def check_new_folder(path: Path) -> None:
    """Raise UserError, before any work is done for it, where a new folder cannot be made: there is something already,
    or where it belongs is missing or may not be written into. An empty folder is no hindrance."""
    path = real(path)
    _check_place(path)
    if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir()) or path == Path.cwd()):
        raise UserError(f"{path} is there already; give a folder that is not there yet, or that is empty")


def _check_place(path: Path) -> None:
    if not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}; make it, or give another")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path} cannot be written: {path.parent} is read-only; give another folder")
