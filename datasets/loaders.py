"""The stream of training batches: one loader for the whole run, one random stream for every batch."""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.pictures import SIDE, Pictures, balanced_order
from datasets.transforms import Augmentation, augment, shrink
from training import schedules

FLIPS, SAMPLE = 2**32 - 1, 2**32 - 2  # in seeds, stand where the number of an epoch does; no run has as many


@dataclass(frozen=True)
class Plan:
    """A batch to be made."""

    epoch: int
    batch: int  # within the epoch
    indices: np.ndarray  # of its pictures
    side: int  # of its pictures, in pixels


class AugmentedBatches(Dataset[tuple[Tensor, Tensor]]):
    """Pictures served a batch at a time: a plan in, N×side×side×3 uint8 images and N targets out.

    What happens to a batch depends on (seed, epoch, batch) alone, whichever worker it is made in.
    """

    def __init__(self, pictures: Pictures, seed: int, augmentation: Augmentation) -> None:
        self.pictures, self.seed, self.augmentation = pictures, seed, augmentation
        self.first_flips = np.random.default_rng([seed, FLIPS]).random(len(pictures)) < 0.5

    def __getitem__(self, plan: Plan) -> tuple[Tensor, Tensor]:
        chosen, how = self.pictures.take(plan.indices), self.augmentation
        images = chosen.images
        if how.pad or how.flip or how.cutout:
            rng = np.random.default_rng([self.seed, plan.epoch, plan.batch + 1])
            mirrored = self._mirrored(plan) if how.flip and how.alternate else None
            images = torch.from_numpy(augment(images.numpy(), how, rng, mirrored))
        return shrink(images, plan.side), chosen.targets

    def _mirrored(self, plan: Plan) -> np.ndarray:
        """Which pictures of a batch are mirrored: in every second epoch the others, so that two epochs show both sides
        of each (Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498, section 3.6)."""
        return self.first_flips[plan.indices] ^ (plan.epoch % 2 == 1)


class Plans(Sampler[Plan]):
    """The batches of a run but the first `done`, shuffled anew each epoch."""

    def __init__(self, count: int, batch_size: int, seed: int, epochs: int, done: int, first_side: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.epochs, self.done, self.first_side = epochs, done, first_side

    def __iter__(self) -> Iterator[Plan]:
        per_epoch = -(-self.count // self.batch_size)
        first_epoch, first_batch = divmod(self.done, per_epoch)
        for epoch in range(first_epoch, self.epochs):
            order = np.random.default_rng([self.seed, epoch, 0]).permutation(self.count)
            for batch in range(first_batch, per_epoch):
                indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
                done = schedules.progress(epoch, batch, per_epoch, self.epochs)
                yield Plan(epoch, batch, indices, schedules.side(done, self.first_side, SIDE))
            first_batch = 0


def training_batches(
    pictures: Pictures,
    *,
    batch_size: int,
    epochs: int,
    done: int,
    seed: int,
    workers: int,
    augmentation: Augmentation,
    pin: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    """All batches of a run but the first `done`, as one stream: the workers are started once and work ahead across
    epochs.

    Yields N×32×32×3 uint8 images (smaller ones while `augmentation` shrinks them) and N int64 targets, in pinned memory
    if `pin`. With no workers the batches are made in this process; the result is the same.
    """
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # the user chose the number
    loader = DataLoader(
        AugmentedBatches(pictures, seed, augmentation),
        sampler=Plans(len(pictures), batch_size, seed, epochs, done, augmentation.first_side),
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
