"""DIGITS: scikit-learn's handwritten digits, 1,797 real 8×8 scans, on every machine without a download.

Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (the test part of it).
"""

import warnings
from pathlib import Path

import torch
from torch.nn import functional as F

from datasets.pictures import Pictures, balanced_order
from datasets.sizing import SIDE

with warnings.catch_warnings():  # it warns where shared memory for processes is lacking; none are started here
    warnings.simplefilter("ignore")
    from sklearn.datasets import load_digits

TRAIN_SHARE = 0.8


def load(root: Path, split: str) -> Pictures:
    """A fixed stratified split: 1,437 training (`train`) and 360 test pictures (`test`); `root` is not used."""
    scans = load_digits()
    grey = torch.from_numpy(scans.images).float() * (255 / 16)  # the scans have 17 levels
    large = F.interpolate(grey[:, None], size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    images = large.round().to(torch.uint8).permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous()
    everything = Pictures(images, torch.from_numpy(scans.target).long(), tuple("0123456789"))
    order = balanced_order(everything.targets)
    cut = int(TRAIN_SHARE * len(order))
    return everything.take(order[:cut] if split == "train" else order[cut:])
