"""A folder of pictures, `<root>/<split>/<class>/*` (torchvision's ImageFolder convention), decoded into memory."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from tqdm import tqdm

from datasets.pictures import SIDE, Pictures
from system.errors import UserError


def load(root: Path, split: str) -> Pictures:
    """All pictures of `root/split`, resized to 32×32 RGB; the classes are the names of its folders, sorted. Files
    whose names do not end like a picture's are passed over.

    Raises UserError for a missing folder, an empty class, and a picture that cannot be read or is unreasonably large.
    """
    if not (root / split).is_dir():
        raise UserError(f"{root} has no folder {split}/; picture folders hold train/<class>/* and test/<class>/*")
    try:
        listing = ImageFolder(str(root / split))
    except FileNotFoundError as error:
        raise UserError(f"{root / split}: {error}") from error
    images = torch.empty(len(listing.samples), SIDE, SIDE, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside Python's lock
        warnings.simplefilter("ignore")  # of odd metadata: the pixels are all that is wanted
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        decoded = pool.map(_decode, (path for path, _ in listing.samples))
        bar = tqdm(decoded, f"reading {root / split}", len(images), leave=False, unit="img", disable=None)
        for index, pixels in enumerate(bar):
            images[index] = torch.from_numpy(pixels)
    return Pictures(images, torch.tensor(listing.targets), tuple(listing.classes))


def _decode(path: str) -> np.ndarray:
    """The first frame of a picture as 32×32×3 uint8, transparency left out. Raises UserError naming the file."""
    try:
        with Image.open(path) as file:  # warns of a picture of too many pixels before it decodes any
            picture = (_eight_bits(file) if file.mode[0] in "IF" else file).convert("RGB")
    except Exception as error:  # Pillow's decoders answer broken files with many kinds of error
        raise UserError(f"{path} is no picture that can be read: {error or type(error).__name__}") from error
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.array(picture)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """A grey picture of 16-bit values, which Pillow would clip, scaled to 8. Raises ValueError for a wider range."""
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError("its values are neither of 8 nor of 16 bits; convert it to one of them")
    return Image.fromarray((values / 257).round().astype(np.uint8))
