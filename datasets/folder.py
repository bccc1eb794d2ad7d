"""A folder of pictures, `<root>/<split>/<class>/*` (the convention of torchvision's ImageFolder), decoded into memory.

A split is listed first. Its files are decoded when they are taken, and a split that was decoded as a whole is kept.
"""

import hashlib
import math
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import PIL
import torch
from torch import Tensor
from tqdm import tqdm

from datasets import cache
from datasets.catalog import ENDINGS, TESTED_ON, folder_is_there
from datasets.decoding import decode_one, decoded
from datasets.pictures import Pictures
from datasets.sizing import NO_MARGIN, USUAL, Margin, Sizing
from system.errors import UserError
from system.files import real, regular
from system.text import printable

DECODING = f"4 {PIL.__version__}"  # decoded otherwise, the same files may give other pixels


@dataclass(frozen=True)
class Listing:
    """The picture files of one split, N paths in the order of their classes, and N int64 targets.

    `kept` is the cache file of the whole split, if there may be one, and `key` stands for the names, sizes and times
    of all files. `whole` and `take` raise UserError for a picture that cannot be read.
    """

    folder: Path
    paths: tuple[str, ...]
    targets: Tensor
    classes: tuple[str, ...]
    sizing: Sizing
    margin: Margin
    key: bytes
    kept: Path | None

    @property
    def picture_bytes(self) -> int:
        """The memory that each picture takes when it is read."""
        return math.prod(self._shape(1))

    def whole(self) -> Pictures:
        """All the pictures."""
        images = self._read_kept(np.arange(len(self.paths)))
        if images is None:
            images = self._decode(self.paths)
            if self.kept:
                cache.write(self.kept, self.key, images)
        return Pictures(images, self.targets, self.classes, self.margin.width)

    def take(self, indices: np.ndarray) -> Pictures:
        """The pictures at these indices, in this order; no others are decoded."""
        images = self._read_kept(indices)
        if images is None:
            images = self._decode([self.paths[index] for index in indices])
        return Pictures(images, torch.from_numpy(self.targets.numpy()[indices]), self.classes, self.margin.width)

    def _decode(self, paths: Sequence[str]) -> Tensor:
        """Picture files of any size as N×side×side×3 uint8, and their margins, under a bar."""
        images = torch.empty(self._shape(len(paths)), dtype=torch.uint8)
        one, title = partial(decode_one, sizing=self.sizing, margin=self.margin), printable(self.folder, 80)
        with closing(decoded(paths, one)) as pictures:
            bar = tqdm(pictures, f"reading {title}", len(paths), leave=False, unit="img", disable=None)
            for index, pixels in enumerate(bar):
                images[index] = torch.from_numpy(pixels)
        return images

    def _read_kept(self, indices: np.ndarray) -> Tensor | None:
        return cache.read(self.kept, self.key, self._shape(len(self.paths)), indices) if self.kept else None

    def _shape(self, count: int) -> tuple[int, int, int, int]:
        side = self.sizing.side + 2 * self.margin.width
        return count, side, side, 3


def load(
    root: Path, split: str, data_dir: Path | None = None, sizing: Sizing = USUAL, margin: Margin = NO_MARGIN
) -> Listing | None:
    """The pictures of `root/split`; the classes are the names of its folders, sorted. Where `test/` is missing, `val/`
    is taken for it. None where there is no such folder. The pictures of `train` have a margin.

    Files whose names do not end like a picture's are passed over, and so are hidden folders (`.ipynb_checkpoints`) and
    links to folders within a class. Decoded pictures are kept under `data_dir`, unless that lies in `root` itself.
    Raises UserError for a class without pictures, for a file that is no regular one, and for a link to nothing.
    """
    folder = split_folder(root, split)
    if folder is None:
        return None
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.name[0] != "." and folder_is_there(entry)))
    if not classes:
        raise UserError(f"{folder} has no folders of classes; picture files are {folder}/<class>/*")
    members = [_of_class(folder / name) for name in classes]
    if empty := [name for name, paths in zip(classes, members, strict=True) if not paths]:
        raise UserError(f"{folder}: no pictures in {', '.join(empty)}; their names end in {', '.join(ENDINGS)}")
    paths = tuple(path for paths in members for path in paths)
    targets = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(paths) for paths in members]))
    margin = margin if split == "train" else NO_MARGIN
    key, kept = _key(folder, paths, sizing, margin), _cache_file(root, folder, sizing, margin, data_dir)
    return Listing(folder, paths, targets, classes, sizing, margin, key, kept)


def split_folder(root: Path, split: str) -> Path | None:
    """The folder of a split: `root/split`, or for `test`, where that is not there, `root/val`; None where neither is.
    Raises UserError for a link to nothing."""
    names = TESTED_ON if split == "test" else (split,)
    return next((root / name for name in names if folder_is_there(root / name)), None)


def _of_class(folder: Path) -> list[str]:
    if folder.is_symlink() and real(folder.parent).is_relative_to(real(folder)):
        raise UserError(f"{folder} is a link to a folder that holds it; a class is a folder of its own")
    return picture_files(folder)


def picture_files(folder: Path) -> list[str]:
    """The paths of a folder's picture files, at any depth but in hidden folders, in a fixed order. Links to folders are
    not followed: they may lead in a circle."""
    found = []
    for place, folders, names in os.walk(folder, onerror=_stop):
        folders[:] = [name for name in folders if name[0] != "."]
        found.append((place, sorted(filter(_is_picture, names))))
    return [f"{place}{os.sep}{name}" for place, names in sorted(found) for name in names]


def _is_picture(name: str) -> bool:
    return name.lower().endswith(ENDINGS) and not name.startswith("._")  # what macOS keeps beside a file of that name


def _stop(error: OSError) -> NoReturn:
    """A folder that cannot be listed is an error; `os.walk` alone would pass over it."""
    raise error


def _key(folder: Path, paths: Sequence[str], sizing: Sizing, margin: Margin) -> bytes:
    """32 bytes that stand for the names, sizes and times of files, and for how they are decoded.

    Modification times can be set by hand and survive a copy. The number of a file and the time at which that last
    changed, which cannot, tell apart files that were swapped or written over.
    """
    key = hashlib.sha256(f"{DECODING} {sizing} {margin}".encode())
    for path in paths:
        status = regular(Path(path))
        name = os.fsencode(path[len(str(folder)) :])
        times = (status.st_mtime_ns, status.st_ctime_ns)
        key.update(b"\n%b\0%d %d %d %d" % (name, status.st_size, status.st_ino, *times))
    return key.digest()


def _cache_file(root: Path, folder: Path, sizing: Sizing, margin: Margin, data_dir: Path | None) -> Path | None:
    """Where the decoded pictures of a split are kept; None means nowhere."""
    if data_dir is None or real(data_dir).is_relative_to(real(root)):
        return None  # nothing is written among the user's pictures
    place = hashlib.sha256(os.fsencode(f"{real(folder)}\0{sizing} {margin}")).hexdigest()[:16]
    return data_dir / "decoded" / f"{folder.name}-{sizing.side}-{place}.pixels"
