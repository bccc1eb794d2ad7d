"""A folder for one run at a time."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from system.errors import UserError

try:
    import fcntl
except ImportError:  # not a POSIX system: two runs on one folder are not kept apart
    fcntl = None

LOCK_FILE = ".lock"


@contextmanager
def locked(folder: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Make the folder, if need be, and keep every other process from opening it here until the block ends.

    The lock file names the process and its host. The system drops the lock of a process that dies; who finds its
    name takes the folder over, and `warn` is told so. Raises UserError where another run is at work.
    """
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a+") as file:
        _take(file, folder)
        file.seek(0)
        if owner := file.read().strip():
            warn(f"{folder} was left by {owner}, which has died")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # the folder may be gone
                (folder / LOCK_FILE).unlink()
                if not existed:
                    folder.rmdir()  # only if nothing was left in it


def _take(file: TextIO, folder: Path) -> None:
    try:
        if fcntl:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = os.fstat(file.fileno()).st_nlink > 0  # not the file that another run is just done with
    except (BlockingIOError, PermissionError):
        free = False
    if not free:
        file.seek(0)
        owner = file.read().strip() or "another process"
        raise UserError(f"{folder} is in use by {owner}; wait for it to end, or give another --save")
