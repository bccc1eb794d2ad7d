"""CIFAR-10 and CIFAR-100 (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009)."""

from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from datasets.download import fetch
from datasets.pictures import Pictures


def load10(root: Path, split: str) -> Pictures:
    """CIFAR-10: 50,000 training (`train`) and 10,000 test pictures (`test`), 10 classes."""
    return _load(CIFAR10, root, split)


def load100(root: Path, split: str) -> Pictures:
    """CIFAR-100: 50,000 training (`train`) and 10,000 test pictures (`test`), 100 classes."""
    return _load(CIFAR100, root, split)


def _load(source: type[CIFAR10], root: Path, split: str) -> Pictures:
    archive = fetch(source, root, f"{source.base_folder}/ (from {source.filename})", train=split == "train")
    images = np.ascontiguousarray(archive.data)  # torchvision's have the channels of a picture one after another
    return Pictures(torch.from_numpy(images), torch.tensor(archive.targets), tuple(archive.classes))
