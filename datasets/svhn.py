"""SVHN, street view house numbers, cropped digits (Netzer et al., 2011); needs SciPy to read the `.mat` files."""

from pathlib import Path

import torch
from torchvision.datasets import SVHN

from datasets.download import fetch
from datasets.pictures import Pictures


def load(root: Path, split: str, extra: bool = True) -> Pictures:
    """604,388 training pictures (`train`), 73,257 without the `extra` ones, or 26,032 test pictures (`test`), of 10
    classes."""
    parts = ("train", "extra") if split == "train" and extra else (split,)
    archives = [fetch(SVHN, root, SVHN.split_list[part][1], split=part) for part in parts]
    images = torch.cat([torch.from_numpy(archive.data).permute(0, 2, 3, 1) for archive in archives])
    targets = torch.cat([torch.from_numpy(archive.labels).long() for archive in archives])
    return Pictures(images.contiguous(), targets, tuple("0123456789"))
