"""Decoded pictures kept on the disk, so that a folder of pictures is decoded once.

A cache file is a key, 32 bytes that stand for what was decoded; the SHA-256 of the pixels; the pixels. Nothing in it
is parsed or unpickled. A file that differs from that in any byte counts as none.
"""

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from system import files
from system.errors import UserError
from system.output import tell

KEY = CHECKSUM = hashlib.sha256().digest_size  # bytes
PART = 1 << 26  # bytes that are read at a time
DAY = 24 * 60 * 60  # seconds; no write takes as long


def read(path: Path, key: bytes, shape: tuple[int, ...], indices: np.ndarray) -> Tensor | None:
    """Of the uint8 pictures of this shape that were kept under this key, those at the indices; None where there are
    none, or damaged ones. There need not be memory for all of them."""
    try:
        if path.stat().st_size != KEY + CHECKSUM + math.prod(shape):  # before it is opened: opening a pipe would wait
            return None
        with path.open("rb") as file:
            if file.read(KEY) != key:
                return None
            checksum, digest = file.read(CHECKSUM), hashlib.sha256()
            taken = np.empty((len(indices), *shape[1:]), np.uint8)
            for first, pictures in _parts(file, shape):
                digest.update(pictures)
                here = (indices >= first) & (indices < first + len(pictures))
                taken[here] = pictures[indices[here] - first]
    except OSError:
        return None
    return torch.from_numpy(taken) if digest.digest() == checksum else None


def _parts(file: BinaryIO, shape: tuple[int, ...]) -> Iterator[tuple[int, np.ndarray]]:
    """The pictures of an open cache file, some at a time, and the index of the first of them."""
    size = math.prod(shape[1:])
    together = max(1, PART // size)
    for first in range(0, shape[0], together):
        count = min(together, shape[0] - first)
        content = file.read(count * size)
        if len(content) != count * size:
            raise OSError("the file has become shorter")
        yield first, np.frombuffer(content, np.uint8).reshape(count, *shape[1:])


def write(path: Path, key: bytes, images: Tensor) -> None:
    """Keep N×H×W×3 uint8 pictures under a key of 32 bytes, atomically; where that fails, say so and go on.

    The file is not forced onto the disk: what a power cut leaves of it does not have its checksum.
    """
    pixels = images.numpy().reshape(-1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, key + hashlib.sha256(pixels).digest(), pixels.data, durable=False)
        files.sweep(path.parent, path.stat().st_mtime - DAY)
    except (OSError, UserError) as error:
        reason = error if isinstance(error, OSError) else error.__cause__
        tell(f"{path.parent}: the decoded pictures are not kept ({reason.strerror})")
