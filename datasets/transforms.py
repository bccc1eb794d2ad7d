"""What happens to a batch between memory and network: crop and flip on uint8, then normalisation.

All of it works on whole batches; the random numbers come in from outside.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn


def crop_and_flip(images: np.ndarray, tops: np.ndarray, lefts: np.ndarray, flips: np.ndarray, pad: int) -> np.ndarray:
    """Pad with `pad` black pixels on each side, crop to the old size, mirror: one gather for the whole batch.

    `images` is N×H×W×C; `tops` and `lefts` are N offsets in 0 … 2·pad, `flips` N booleans. As torchvision's
    `pad`, `crop` and `hflip` do to each picture.
    """
    count, height, width, channels = images.shape
    padded = np.zeros((count, height + 2 * pad, width + 2 * pad, channels), images.dtype)
    padded[:, pad : pad + height, pad : pad + width] = images
    rows = padded.reshape(count, height + 2 * pad, -1)  # whole rows of bytes are copied faster than pixels
    windows = sliding_window_view(rows, (height, width * channels), axis=(1, 2))
    cropped = windows[np.arange(count), tops, lefts * channels].reshape(images.shape)
    pixels = cropped.view(np.dtype((np.void, channels * images.itemsize)))
    pixels[flips] = pixels[flips, :, ::-1]
    return cropped


def augment(images: np.ndarray, pad: int, flip: bool, rng: np.random.Generator) -> np.ndarray:
    """Random crops of N×H×W×C images out of a margin of `pad` pixels, every second one mirrored if `flip`."""
    count = len(images)
    tops, lefts = rng.integers(0, 2 * pad, size=(2, count), endpoint=True)
    flips = rng.random(count) < (0.5 if flip else 0.0)
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
