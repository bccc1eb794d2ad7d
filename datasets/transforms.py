"""What happens to a batch between memory and network: mirror, crop, cut and shrink on uint8, then normalisation.

All of it works on whole batches; the random numbers come in from outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """How training pictures are varied.

    `pad` is the margin of the random crop in pixels, `padding` what is seen there (`padded`). With `with_margin` the
    pictures have their margin already.

    `flip` mirrors every second picture, by chance, or, with `alternate`, each picture in every second epoch. `cutout`
    is the side in pixels of the square that is painted over, 0 for none. `fill` is the colour for that, and for margins
    of the mean colour.
    """

    pad: int = 0
    padding: str = "black"
    with_margin: bool = False
    flip: bool = False
    alternate: bool = False
    cutout: int = 0
    fill: tuple[float, ...] = (0.0, 0.0, 0.0)


def padded(
    images: np.ndarray, rows: int, columns: int, padding: str, fill: Sequence[float] | None = None
) -> np.ndarray:
    """Images …×H×W×C with a margin, `rows` more above and below, `columns` more left and right: `black`, with `mean` of
    the colour `fill` (None: of each image's own mean), with `reflect` the image mirrored at its edge."""
    if padding == "reflect":
        margins = ((0, 0),) * (images.ndim - 3) + ((rows, rows), (columns, columns), (0, 0))
        return np.pad(images, margins, mode="reflect")
    *count, height, width, channels = images.shape
    result = np.zeros((*count, height + 2 * rows, width + 2 * columns, channels), images.dtype)
    if padding == "mean":
        result[:] = _colour(images.mean((-3, -2), keepdims=True) if fill is None else fill, images)
    result[..., rows : rows + height, columns : columns + width, :] = images
    return result


def _colour(fill: Sequence[float] | np.ndarray, images: np.ndarray) -> np.ndarray:
    """Colours on the 0 … 255 scale as images have them."""
    return np.rint(fill).astype(images.dtype)


def crop_and_flip(images: np.ndarray, tops: np.ndarray, lefts: np.ndarray, flips: np.ndarray, pad: int) -> np.ndarray:
    """Cut each picture to its size without the margin, at an offset of its own, and mirror some: one gather for the
    whole batch.

    `images` is N×(H + 2·pad)×(W + 2·pad)×C, the result N×H×W×C; `tops` and `lefts` are N offsets in 0 … 2·pad, `flips`
    N booleans. As torchvision's `crop` and `hflip` do to each picture.
    """
    count, rows, columns, channels = images.shape
    height, width = rows - 2 * pad, columns - 2 * pad
    lines = images.reshape(count, rows, columns * channels)  # whole rows of bytes are copied faster than pixels
    windows = sliding_window_view(lines, (height, width * channels), axis=(1, 2))
    cropped = windows[np.arange(count), tops, lefts * channels].reshape(count, height, width, channels)
    pixels = cropped.view(np.dtype((np.void, channels * images.itemsize)))
    pixels[flips] = pixels[flips, :, ::-1]
    return cropped


def cut_out(images: np.ndarray, rows: np.ndarray, columns: np.ndarray, size: int, fill: Sequence[float]) -> None:
    """Paint a square of `size` pixels around (row, column) over with a colour, in place; what lies outside of the
    picture is lost (DeVries and Taylor, "Cutout", arXiv 1708.04552). `images` is N×H×W×C, `rows`, `columns` are N."""
    height, width = images.shape[1:3]
    below, right = (np.arange(n) - (c[:, None] - size // 2) for n, c in ((height, rows), (width, columns)))
    inside = ((below >= 0) & (below < size))[:, :, None] & ((right >= 0) & (right < size))[:, None, :]
    images[inside] = _colour(fill, images)


def augment(
    images: np.ndarray,
    how: Augmentation,
    rng: np.random.Generator,
    mirrored: np.ndarray | None = None,
    places: Sequence[int] | None = None,
    whole: int | None = None,
) -> np.ndarray:
    """Vary N×H×W×C images at random; `mirrored`, N booleans, says which are flipped where chance does not.

    Images that are a part of a `whole` batch, at `places` of it, are varied as they would be among the others.
    """
    if not how.with_margin:
        images = padded(images, how.pad, how.pad, how.padding, how.fill)
    count, own = (len(images), slice(None)) if places is None else (whole, places)
    tops, lefts = rng.integers(0, 2 * how.pad, size=(2, count), endpoint=True)[:, own]
    flips = rng.random(count)[own] < (0.5 if how.flip else 0.0)
    varied = crop_and_flip(images, tops, lefts, flips if mirrored is None else mirrored, how.pad)
    _, height, width, _ = varied.shape
    if how.cutout:
        rows, columns = rng.integers(height, size=count)[own], rng.integers(width, size=count)[own]
        cut_out(varied, rows, columns, how.cutout, how.fill)
    return varied


def shrink(images: Tensor, side: int) -> Tensor:
    """N×H×H×C uint8 -> N×side×side×C uint8, bilinear, without aliasing."""
    if images.shape[1] == side:
        return images
    small = F.interpolate(images.permute(0, 3, 1, 2), (side, side), mode="bilinear", antialias=True)
    return small.permute(0, 2, 3, 1).contiguous()


class Normalise(nn.Module):
    """N×H×W×C uint8, or float32 from 0 to 255, -> N×C×H×W float32, (x - mean) / std per channel; channels_last in
    memory, on its own device.

    `mean` and `std` are on the 0 … 255 scale. Put before a network, it lets pictures travel as bytes.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """N×H×W×C -> N×C×H×W, normalised."""
        return images.permute(0, 3, 1, 2).to(torch.float32, copy=True).sub_(self.mean).div_(self.std)
