"""What happens to a batch between memory and network: crop and flip on uint8, then normalisation.

All of it works on whole batches; the random numbers come in from outside.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def crop_and_flip(images: Tensor, tops: Tensor, lefts: Tensor, flips: Tensor, pad: int) -> Tensor:
    """Pad with `pad` black pixels on each side, crop to the old size, mirror: one gather for the whole batch.

    `images` is N×H×W×C; `tops` and `lefts` are N offsets in 0 … 2·pad, `flips` N booleans. As torchvision's
    `pad`, `crop` and `hflip` do to each picture.
    """
    count, height, width, _ = images.shape
    padded = F.pad(images, (0, 0, pad, pad, pad, pad))
    rows = tops[:, None] + torch.arange(height)
    columns = torch.arange(width).expand(count, width)
    columns = lefts[:, None] + torch.where(flips[:, None], columns.flip(1), columns)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def augment(images: Tensor, pad: int, flip: bool, rng: np.random.Generator) -> Tensor:
    """Random crops of N×H×W×C uint8 images out of a margin of `pad` pixels, every second one mirrored if `flip`."""
    count = len(images)
    tops, lefts = torch.from_numpy(rng.integers(0, 2 * pad, size=(2, count), endpoint=True))
    flips = torch.from_numpy(rng.random(count) < (0.5 if flip else 0.0))
    return crop_and_flip(images, tops, lefts, flips, pad)


class Normalise(nn.Module):
    """N×H×W×C uint8 -> N×C×H×W float32, (x - mean) / std per channel; channels_last in memory, on its own device.

    `mean` and `std` are on the 0 … 255 scale. Put before a network, it lets pictures travel as bytes.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 3, 1, 2).float().sub_(self.mean).div_(self.std)
