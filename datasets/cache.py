"""Decoded pictures kept on the disk, so that a folder of pictures is decoded once.

A cache file is a key, 32 bytes that stand for what was decoded; the SHA-256 of the pixels; the pixels. Nothing in it
is parsed or unpickled. A file that differs from that in any byte counts as none.
"""

import hashlib
import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from system import files
from system.errors import UserError

KEY = CHECKSUM = hashlib.sha256().digest_size  # bytes


def read(path: Path, key: bytes, shape: tuple[int, ...]) -> Tensor | None:
    """The uint8 pictures of this shape that were kept under this key; None where there are none, or damaged ones."""
    pixels = np.empty(math.prod(shape), np.uint8)
    try:
        if path.stat().st_size != KEY + CHECKSUM + pixels.nbytes:  # before it is opened: opening a pipe would wait
            return None
        with path.open("rb") as file:
            if file.read(KEY) != key:
                return None
            checksum = file.read(CHECKSUM)
            file.readinto(pixels)
    except OSError:
        return None
    if hashlib.sha256(pixels).digest() != checksum:
        return None
    return torch.from_numpy(pixels.reshape(shape))


def write(path: Path, key: bytes, images: Tensor) -> None:
    """Keep N×H×W×3 uint8 pictures under a key of 32 bytes, atomically; where that fails, say so and go on.

    The file is not forced onto the disk: what a power cut leaves of it does not have its checksum.
    """
    pixels = images.numpy().reshape(-1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, key + hashlib.sha256(pixels).digest(), pixels.data, durable=False)
    except (OSError, UserError) as error:
        reason = error if isinstance(error, OSError) else error.__cause__
        print(f"{path.parent}: the decoded pictures are not kept ({reason.strerror})", file=sys.stderr)
