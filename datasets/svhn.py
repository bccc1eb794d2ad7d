"""SVHN, street view house numbers, cropped digits (Netzer et al., 2011); needs SciPy to read the `.mat` files."""

from pathlib import Path

import torch
from torchvision.datasets import SVHN

from datasets.download import fetch
from datasets.pictures import Pictures


def load(root: Path, split: str) -> Pictures:
    """Train + extra, 604,388 pictures (`train`), or 26,032 test pictures (`test`), 10 classes."""
    return _load(root, ("train", "extra") if split == "train" else (split,))


def load_without_extra(root: Path, split: str) -> Pictures:
    """As `load`, with the 73,257 pictures of train alone."""
    return _load(root, (split,))


def _load(root: Path, parts: tuple[str, ...]) -> Pictures:
    archives = [fetch(SVHN, root, SVHN.split_list[part][1], split=part) for part in parts]
    images = torch.cat([torch.from_numpy(archive.data).permute(0, 2, 3, 1) for archive in archives])
    targets = torch.cat([torch.from_numpy(archive.labels).long() for archive in archives])
    return Pictures(images.contiguous(), targets, tuple("0123456789"))
