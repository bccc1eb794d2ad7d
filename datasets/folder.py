"""A folder of pictures, `<root>/<split>/<class>/*` (torchvision's ImageFolder convention), decoded into memory."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from tqdm import tqdm

from datasets.pictures import SIDE, Pictures
from errors import UserError


def load(root: Path, split: str) -> Pictures:
    """All pictures of `root/split`, resized to 32×32 RGB; the classes are the names of its folders, sorted.

    Raises UserError for a missing folder, an empty class or a file that is no picture.
    """
    if not (root / split).is_dir():
        raise UserError(f"{root} has no folder {split}/; picture folders hold train/<class>/* and test/<class>/*")
    try:
        listing = ImageFolder(str(root / split))
    except FileNotFoundError as error:
        raise UserError(f"{root / split}: {error}") from error
    images = torch.empty(len(listing.samples), SIDE, SIDE, 3, dtype=torch.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter lock
        decoded = pool.map(_decode, (path for path, _ in listing.samples))
        bar = tqdm(decoded, f"reading {root / split}", len(images), leave=False, unit="img", disable=None)
        for index, pixels in enumerate(bar):
            images[index] = torch.from_numpy(pixels)
    return Pictures(images, torch.tensor(listing.targets), tuple(listing.classes))


def _decode(path: str) -> np.ndarray:
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except OSError as error:
        raise UserError(f"{path} is no picture that can be read: {error}") from error
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.array(picture)
