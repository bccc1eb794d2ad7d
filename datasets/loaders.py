"""The stream of training batches: one loader for the whole run, one random stream for every batch."""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.pictures import Pictures, balanced_order
from datasets.transforms import Augmentation, augment, shrink

FLIPS, SAMPLE = 2**32 - 1, 2**32 - 2  # in seeds, stand where the number of an epoch does; no run has as many


@dataclass(frozen=True)
class Step:
    """One step of a training, and the pictures that this process takes to it."""

    epoch: int  # counted from 0
    index: int  # within the epoch, counted from 0
    progress: float  # the part of all steps that is done before this one, 0 … 1
    side: int  # of its pictures, in pixels
    indices: np.ndarray  # of its pictures


class Batch(NamedTuple):
    """The pictures of a step: N×side×side×3 uint8 images and N int64 targets."""

    step: Step
    images: Tensor
    targets: Tensor


class AugmentedBatches(Dataset[Batch]):
    """Pictures served a batch at a time: a step in, its batch out.

    What happens to a batch depends on (seed, epoch, index) alone, whichever worker it is made in.
    """

    def __init__(self, pictures: Pictures, seed: int, augmentation: Augmentation) -> None:
        self.pictures, self.seed, self.augmentation = pictures, seed, augmentation
        self.first_flips = np.random.default_rng([seed, FLIPS]).random(len(pictures)) < 0.5

    def __getitem__(self, step: Step) -> Batch:
        chosen, how = self.pictures.take(step.indices), self.augmentation
        images = chosen.images
        if how.pad or how.flip or how.cutout:
            rng = np.random.default_rng([self.seed, step.epoch, step.index + 1])
            mirrored = self._mirrored(step) if how.flip and how.alternate else None
            images = torch.from_numpy(augment(images.numpy(), how, rng, mirrored))
        return Batch(step, shrink(images, step.side), chosen.targets)

    def _mirrored(self, step: Step) -> np.ndarray:
        """Which pictures of a batch are mirrored: in every second epoch the others, so that two epochs show both sides
        of each (Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498, section 3.6)."""
        return self.first_flips[step.indices] ^ (step.epoch % 2 == 1)


def training_batches(
    pictures: Pictures, steps: Iterable[Step], *, seed: int, workers: int, augmentation: Augmentation, pin: bool
) -> Iterator[Batch]:
    """The batches of all steps, as one stream: the workers are started once and work ahead across epochs.

    Batches are in pinned memory if `pin`. With no workers they are made in this process; the result is the same.
    """
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # the user chose the number
    loader = DataLoader(
        AugmentedBatches(pictures, seed, augmentation),
        sampler=steps,
        batch_size=None,  # an item is a batch already
        num_workers=workers,
        pin_memory=pin,
        generator=torch.Generator(),  # leaves the global generator, which dropout draws from, alone
        worker_init_fn=_on_its_own,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,  # dies with this process
    )
    batches = iter(loader)
    if workers and hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        # PyTorch would raise the death of a worker wherever the program is, even within native code, which aborts it.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # it still notices within five seconds of waiting for a batch
    return batches


def varied_sample(pictures: Pictures, count: int, seed: int, augmentation: Augmentation) -> Tensor:
    """At most `count` of the pictures, N×32×32×3 uint8, the classes in the proportions of the whole, varied as in
    training but of full size; always the same."""
    chosen = pictures.take(balanced_order(pictures.targets)[:count])
    return torch.from_numpy(augment(chosen.images.numpy(), augmentation, np.random.default_rng([seed, SAMPLE])))


def _on_its_own(worker: int) -> None:
    """A signal that the terminal or a scheduler sends to the whole group is for the program, not for its workers."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
