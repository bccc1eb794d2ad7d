"""The stream of training batches: workers for the whole run, one random stream for every batch."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.pictures import Pictures
from datasets.transforms import Augmentation, augment, shrink
from system.workers import crew

# Streams of random numbers are told apart by what follows the seed of the run; a number that is missing counts as 0:
#   [epoch, 0]              the order of an epoch                  training/plan.py
#   [epoch, index + 1]      how the pictures of a step are varied
#   [FLIPS]                 which pictures are mirrored first
#   [SAMPLE]                how `varied_sample` varies its own
#   [SHARES, epoch, index]  mixup (those of statistics: [SHARES])  training/mixing.py
# FLIPS, SAMPLE and SHARES stand in place of an epoch, and no run has as many. (What several processes draw on their
# own, `world.draw_apart`, is of generators of another kind.)
FLIPS, SAMPLE = 2**32 - 1, 2**32 - 2


@dataclass(frozen=True)
class Step:
    """One step of a training, and the pictures that this process takes to it."""

    epoch: int  # counted from 0
    index: int  # within the epoch, counted from 0
    progress: float  # the part of all steps that is done before this one, 0 … 1
    side: int  # of its pictures, in pixels
    indices: np.ndarray  # of its pictures, N
    places: range  # of them in the whole batch, N
    whole: int  # the pictures of the whole batch, which all processes share


class Batch(NamedTuple):
    """The pictures of a step: N×side×side×3 uint8 images and N int64 targets."""

    step: Step
    images: Tensor
    targets: Tensor

    def __reduce__(self) -> tuple[Callable[..., "Batch"], tuple[Step, np.ndarray, np.ndarray]]:
        """How a batch comes from a worker: as bytes. PyTorch would send tensors through shared memory."""
        return _received, (self.step, self.images.numpy(), self.targets.numpy())


def _received(step: Step, images: np.ndarray, targets: np.ndarray) -> Batch:
    return Batch(step, torch.from_numpy(images), torch.from_numpy(targets))


class AugmentedBatches:
    """Pictures served a batch at a time: a step in, its batch out.

    What happens to a picture depends on (seed, epoch, index) and its place in the whole batch, whichever worker makes
    the batch, and whichever process takes the picture.
    """

    def __init__(self, pictures: Pictures, seed: int, augmentation: Augmentation) -> None:
        self.pictures, self.seed, self.augmentation = pictures, seed, augmentation
        self.first_flips = np.random.default_rng([seed, FLIPS]).random(len(pictures)) < 0.5

    def __call__(self, step: Step) -> Batch:
        """The batch of a step."""
        chosen, how = self.pictures.take(step.indices), self.augmentation
        images = chosen.images
        if how.pad or how.flip or how.cutout:
            rng = np.random.default_rng([self.seed, step.epoch, step.index + 1])
            mirrored = self._mirrored(step) if how.flip and how.alternate else None
            images = torch.from_numpy(augment(images.numpy(), how, rng, mirrored, step.places, step.whole))
        return Batch(step, shrink(images, step.side), chosen.targets)

    def _mirrored(self, step: Step) -> np.ndarray:
        """Which pictures of a batch are mirrored: in every second epoch the others, so that two epochs show both sides
        of each (Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498, section 3.6)."""
        return self.first_flips[step.indices] ^ (step.epoch % 2 == 1)


def training_batches(
    pictures: Pictures, steps: Iterable[Step], *, seed: int, workers: int, augmentation: Augmentation, pin: bool
) -> Iterator[Batch]:
    """The batches of all steps, as one stream: the workers are started once and work ahead across epochs.

    Batches are in pinned memory if `pin`. With no workers they are made in this process; the result is the same. That
    is done, too, and said, where the system starts no workers. Closing the stream ends the workers. Raises WorkerDied.
    """
    with closing(crew(AugmentedBatches(pictures, seed, augmentation), workers)) as busy:
        for step, images, targets in busy.map(steps):
            yield Batch(step, images.pin_memory(), targets.pin_memory()) if pin else Batch(step, images, targets)


def varied_sample(pictures: Pictures, count: int, seed: int, augmentation: Augmentation) -> Tensor:
    """At most `count` of the pictures, N×side×side×3 uint8, the classes in the proportions of the whole, varied as in
    training but of full size; always the same."""
    chosen = pictures.sample(count)
    return torch.from_numpy(augment(chosen.images.numpy(), augmentation, np.random.default_rng([seed, SAMPLE])))
