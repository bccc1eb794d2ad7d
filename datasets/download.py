"""torchvision's data sets, downloaded on first use, with one clear error where that cannot be done."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

from system.errors import UserError
from system.lock import in_turn

SILENCE = 60.0  # seconds without a byte, after which a server is given up


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
        # Who has waited for another finds what that has downloaded.
        with in_turn(root, "downloading into"), _answered_within(SILENCE):
            return source(root, download=True, **options)
    except (OSError, RuntimeError, ValueError, HTTPException) as error:  # the last two of odd proxies and servers
        name = source.__name__
        raise UserError(
            f"{name} is not there and could not be downloaded ({error}): {files} missing or damaged in {root}/. "
            f"Put the file there, name its folder with --dataDir, unpack pictures into "
            f"{root / name.lower()}/{{train,test}}/<class>/, or try DIGITS, which needs no download"
        ) from error


@contextmanager
def _answered_within(seconds: float) -> Iterator[None]:
    """While open, who is waited for longer than this in one go is given up, with a TimeoutError."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
