"""A folder for one run at a time."""

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from system.errors import UserError
from system.files import NOT_THERE, sweep
from system.output import tell
from system.text import LONGEST, printable

try:
    import fcntl
except ImportError:  # not a POSIX system: two runs on one folder are not kept apart
    fcntl = None

LOCK_FILE = ".lock"
ATTEMPTS = 5  # to make the folder and the file in it


@contextmanager
def locked(folder: Path) -> Iterator[Callable[[], None]]:
    """Make the folder, if need be, and keep every other process from opening it here until the block ends. Yields a
    check, which raises UserError once the folder was moved or replaced: another run may be at work here by then.

    The lock file names the process and its host. The system drops the lock of a process that dies; who finds its
    name takes the folder over and tells the user so, as it does where the file system has no locks. Raises UserError
    where another run is at work, and where the lock file is not one.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    with _opened(folder) as file:
        alone, here = _take(file, folder), partial(_check_here, folder, folder.stat(), file)
        if not alone:
            tell(f"{folder} cannot be locked on this system or file system: see to it that no second run uses it")
        elif owner := _owner(file):
            tell(f"{folder} was left by {owner}, which has died")
        try:
            _sign(file, folder)
            sweep(folder)
            yield here
        finally:
            with suppress(OSError, UserError):  # the folder may be gone
                here()
                (folder / LOCK_FILE).unlink()
                for place in made:
                    place.rmdir()  # only if nothing was left in it


@contextmanager
def in_turn(folder: Path, doing: str) -> Iterator[None]:
    """While open, every other process that asks for the same folder waits, and says what this one is doing. Where the
    system or the file system has no locks, nobody waits."""
    if not fcntl:
        yield
        return
    with _opened_by_anyone(folder) as file:
        with suppress(OSError):  # flock, which keeps threads of one process apart, too
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(f"waiting for another program that is {doing} {folder}/")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _opened(folder: Path) -> BinaryIO:
    """The lock file, made if need be. A link, or a file that has a second name elsewhere, is not written into."""
    path = folder / LOCK_FILE
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    for attempt in range(ATTEMPTS):
        try:
            _make(folder)
            descriptor = os.open(path, flags, 0o666)
            break
        except FileNotFoundError:  # a run that ends has removed the folders that it made
            if attempt + 1 == ATTEMPTS:
                raise
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
                raise
            raise UserError(f"{path} is no lock file, but a link or something else; remove it") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise UserError(f"{path} is no lock file of its own, but another name of a file, or something else; remove it")
    return os.fdopen(descriptor, "r+b", buffering=0)  # what cannot be written is not tried again when it is closed


def _opened_by_anyone(folder: Path) -> BinaryIO:
    """The lock file, made if need be. That of another user is opened for reading, which will do for `flock`, though not
    over NFS."""
    try:
        return _opened(folder)
    except PermissionError:
        path = folder / LOCK_FILE
        if not path.is_file():
            raise
        return path.open("rb")


def check_free(folder: Path) -> None:
    """Raise UserError where a run is at work in a folder."""
    with suppress(OSError), (folder / LOCK_FILE).open("r+b") as file:
        _take(file, folder)


def _check_here(folder: Path, before: os.stat_result, file: BinaryIO) -> None:
    """Raise UserError where a folder is not what it was `before`, or has another lock file than this open one. A lock
    that somebody removed is no reason to stop, and neither is what a file system does not answer just now."""
    try:
        same = os.path.samestat(folder.stat(), before)
        with suppress(FileNotFoundError):
            same = same and os.path.samestat((folder / LOCK_FILE).lstat(), os.fstat(file.fileno()))
    except OSError as error:
        same = error.errno not in (errno.ENOENT, errno.ENOTDIR)
    if not same:
        raise UserError(
            f"{folder} is no longer the folder in which the run began, or another run is at work in it; if it was "
            "moved, go on with --resume and its place"
        )


def _make(folder: Path) -> None:
    """A folder, if it is not there yet. Raises UserError where there is something else."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(
            f"{folder} cannot be made: a file, or a link to nothing, is there or above; remove that"
        ) from error


def _sign(file: BinaryIO, folder: Path) -> None:
    """Write into a lock file whose it is. Raises UserError where the disk is full."""
    try:
        file.seek(0)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except OSError as error:
        raise UserError(f"{folder / LOCK_FILE} could not be written: {error.strerror}") from error


def _owner(file: BinaryIO) -> str:
    """Who a lock file says that it is of."""
    file.seek(0)
    return printable(file.read(LONGEST).decode(errors="replace").strip())


def _take(file: BinaryIO, folder: Path) -> bool:
    """Lock the file; whether there are locks. Raises UserError where another process has it."""
    if not fcntl:
        return False
    try:  # lockf, because loader workers inherit a lock by flock, and would have it when their run was killed
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = os.fstat(file.fileno()).st_nlink > 0  # not the file that another run is just done with
    except (BlockingIOError, PermissionError):
        free = False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, *NOT_THERE):
            raise
        return False
    if not free:
        owner = _owner(file) or "another process"
        raise UserError(f"{folder} is in use by {owner}; wait for it to end, or give another --save")
    return True
