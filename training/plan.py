"""The plan of a training: what happens at each of its steps, fixed by the seed before the first one."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from datasets.loaders import Step
from system import world
from training import schedules


@dataclass(frozen=True)
class Plan:
    """All steps of `epochs` epochs over `pictures` pictures, shuffled anew each epoch by (seed, epoch) alone.

    In the first half of the training pictures grow from `first_side` to `side` pixels.
    """

    pictures: int
    batch_size: int
    epochs: int
    seed: int
    side: int
    first_side: int

    @property
    def steps(self) -> int:
        """How many steps an epoch has."""
        return -(-self.pictures // self.batch_size)

    def pictures_after(self, steps: int) -> int:
        """How many pictures of an epoch its first steps take; the last takes what is left. Where that is less than a
        quarter of a batch, the last two share: few pictures move weights and batch norm statistics as far as many."""
        left = self.pictures - (self.steps - 1) * self.batch_size
        if steps == self.steps - 1 > 0 and 4 * left < self.batch_size:
            return self.pictures - (self.batch_size + left) // 2
        return min(steps * self.batch_size, self.pictures)

    def progress(self, epoch: int, index: int) -> float:
        """The part of the training that is done before a step, both counted from 0."""
        return min((epoch + index / self.steps) / self.epochs, 1.0)

    def side_at(self, epoch: int, index: int = 0) -> int:
        """The side in pixels of the pictures of a step, both counted from 0."""
        return schedules.side(self.progress(epoch, index), self.first_side, self.side)

    def after(self, epochs: int, steps: int = 0) -> Iterator[Step]:
        """The steps that are left after so many whole epochs and `steps` steps of the next one."""
        for epoch in range(epochs, self.epochs):
            order = np.random.default_rng([self.seed, epoch, 0]).permutation(self.pictures)
            for index in range(steps, self.steps):
                batch = order[self.pictures_after(index) : self.pictures_after(index + 1)]
                own, places = world.own(batch), world.own(range(len(batch)))
                side = self.side_at(epoch, index)
                yield Step(epoch, index, self.progress(epoch, index), side, own, places, len(batch))
            steps = 0
