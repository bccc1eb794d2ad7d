"""The stream of training batches: one loader for the whole run, one random stream for every batch."""

import os
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.pictures import Pictures
from datasets.transforms import augment

Plan = tuple[int, int, np.ndarray]  # epoch, batch within it, indices of its pictures


class AugmentedBatches(Dataset[tuple[Tensor, Tensor]]):
    """Pictures served a batch at a time: a plan in, N×32×32×3 uint8 images and N targets out.

    What happens to a batch depends on (seed, epoch, batch) alone, whichever worker it is made in.
    """

    def __init__(self, pictures: Pictures, seed: int, pad: int, flip: bool) -> None:
        self.pictures, self.seed, self.pad, self.flip = pictures, seed, pad, flip

    def __getitem__(self, plan: Plan) -> tuple[Tensor, Tensor]:
        epoch, batch, indices = plan
        chosen = self.pictures.take(indices)
        if not (self.pad or self.flip):
            return chosen.images, chosen.targets
        rng = np.random.default_rng([self.seed, epoch, batch + 1])
        return torch.from_numpy(augment(chosen.images.numpy(), self.pad, self.flip, rng)), chosen.targets


class Plans(Sampler[Plan]):
    """The batches of a run but the first `done`, shuffled anew each epoch."""

    def __init__(self, count: int, batch_size: int, seed: int, epochs: int, done: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.epochs, self.done = epochs, done

    def __iter__(self) -> Iterator[Plan]:
        per_epoch = -(-self.count // self.batch_size)
        first_epoch, first_batch = divmod(self.done, per_epoch)
        for epoch in range(first_epoch, self.epochs):
            order = np.random.default_rng([self.seed, epoch, 0]).permutation(self.count)
            for batch in range(first_batch, per_epoch):
                yield epoch, batch, order[batch * self.batch_size : (batch + 1) * self.batch_size]
            first_batch = 0


def training_batches(
    pictures: Pictures,
    *,
    batch_size: int,
    epochs: int,
    done: int,
    seed: int,
    workers: int,
    pad: int,
    flip: bool,
    pin: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    """All batches of a run but the first `done`, as one stream: the workers are started once and work ahead across
    epochs.

    Yields N×32×32×3 uint8 images and N int64 targets, in pinned memory if `pin`. With no workers the batches are
    made in this process; the result is the same.
    """
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # the user chose the number
    loader = DataLoader(
        AugmentedBatches(pictures, seed, pad, flip),
        sampler=Plans(len(pictures), batch_size, seed, epochs, done),
        batch_size=None,  # an item is a batch already
        num_workers=workers,
        pin_memory=pin,
        generator=torch.Generator(),  # leaves the global generator, which dropout draws from, alone
        worker_init_fn=_on_its_own,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,  # dies with this process
    )
    return iter(loader)


def _on_its_own(worker: int) -> None:
    """A signal that the terminal or a scheduler sends to the whole group is for the program, not for its workers."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
