"""Pictures in memory: one uint8 tensor, its targets and its class names; subsets in a seeded, balanced order."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

COUNTED = 1000  # pictures at a time, since their values are widened to 32 bits for that


@dataclass(frozen=True)
class Pictures:
    """N labelled pictures of one split.

    `images` is N×H×W×3 uint8: with channels last in memory, a batch becomes a channels_last N×3×H×W tensor
    without moving a byte. `targets` is N int64 class indices into `classes`. Pictures to train on may have a
    `margin` of so many pixels on each side, which random crops go into.
    """

    images: Tensor
    targets: Tensor
    classes: tuple[str, ...]
    margin: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def picture_bytes(self) -> int:
        """0, because they are in memory already."""
        return 0

    def whole(self) -> "Pictures":
        """All the pictures."""
        return self

    def sample(self, count: int) -> "Pictures":
        """So many of the pictures, or all if there are fewer: of all classes in the proportions of the whole, and
        always the same."""
        return self.take(balanced_order(self.targets)[:count])

    def take(self, indices: np.ndarray) -> "Pictures":
        """The pictures at these indices, in this order."""
        images, targets = (torch.from_numpy(part.numpy()[indices]) for part in (self.images, self.targets))
        return replace(self, images=images, targets=targets)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All pictures in order, as N×H×W×3 uint8 images and N targets; the last batch takes what is left."""
        return zip(self.images.split(size), self.targets.split(size), strict=True)

    def without_margin(self) -> "Pictures":
        """The pictures as they are tested."""
        return replace(self, images=self._inner().contiguous(), margin=0)

    def _inner(self) -> Tensor:
        start, (_, height, width, _) = self.margin, self.images.shape
        return self.images[:, start : height - start, start : width - start]

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel on the 0 … 255 scale, exact; margins do not count."""
        counts = torch.zeros(3, 256, dtype=torch.int64)
        for images in self._inner().split(COUNTED):
            for channel, values in enumerate(images.unbind(3)):
                counts[channel] += torch.bincount(values.reshape(-1).int(), minlength=256)
        levels = torch.arange(256, dtype=torch.float64)
        share = counts.double() / counts.sum(1, keepdim=True)
        mean = share @ levels
        variance = share @ levels.square() - mean.square()
        std = variance.clamp(min=1.0).sqrt()  # a channel without variation is left as it is
        return tuple(mean.tolist()), tuple(std.tolist())


class Split(Protocol):
    """The labelled pictures of a split: their targets are known, their pixels may still have to be read.

    `Pictures` is one whose pixels are in memory. `whole` and `take` raise UserError for a picture that cannot be read.
    """

    @property
    def targets(self) -> Tensor:
        """N int64 class indices into `classes`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""

    @property
    def picture_bytes(self) -> int:
        """The memory that each picture takes when it is read."""

    def whole(self) -> Pictures:
        """All the pictures."""

    def take(self, indices: np.ndarray) -> Pictures:
        """The pictures at these indices, in this order."""


def balanced_order(targets: Tensor) -> np.ndarray:
    """A seeded order of the indices of which every stretch holds the classes in the proportions of the whole."""
    labels = targets.numpy()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    place = np.empty(len(labels))
    for members in np.split(by_class, np.cumsum(np.bincount(labels))[:-1]):
        if len(members):
            place[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(place, kind="stable")
