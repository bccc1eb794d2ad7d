"""Which network a run keeps after an epoch, and how it does on pictures that it was not trained on."""

import copy
import math
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

from datasets.loaders import varied_sample
from datasets.pictures import Pictures
from datasets.splits import TrainingData
from datasets.transforms import Augmentation
from inference import evaluation
from models.metrics import Result
from models.multiexit import MultiExit
from system import world
from training import mixing
from training.plan import Plan
from training.trainer import Trainer

Item = TypeVar("Item")
STATISTICS = 2500  # training pictures to measure batch norm statistics on, where that is needed; more are no better


class Evaluator:
    """What tests the networks of a trainer, on all its devices and in all processes. It stops between two batches where
    the trainer would stop between two steps."""

    def __init__(self, trainer: Trainer, data: TrainingData, plan: Plan, augmentation: Augmentation) -> None:
        self.trainer, self.data, self.plan, self.augmentation = trainer, data, plan, augmentation

    def network_to_keep(self, epoch: int) -> MultiExit:
        """The network that is trained, or a copy with the averaged weights.

        Unless the epoch (counted from 0) gave it batch norm statistics for its weights, on pictures of full size, these
        are measured.
        """
        network, average = self.trainer.network, self.trainer.average
        if self.plan.side_at(epoch) == self.plan.side and not average:
            return network
        seed, mixup = self.trainer.seed, self.trainer.mixup
        with self.trainer.stop.breaking():
            world.draw_apart(seed, epoch, self.plan.steps)  # dropout, while statistics are measured
            sample = varied_sample(self.data.train, STATISTICS, seed, self.augmentation)
            count = math.ceil(len(sample) / evaluation.batch_size(self.plan.side))
            # Batches of one size, as all count alike.
            batches = mixing.mixed_batches(sample, count, mixup, seed) if mixup else sample.tensor_split(count)
            network, shared = copy.deepcopy(average.network if average else network), self._shared_out(batches)
            return evaluation.measure_statistics(network, self.trainer.normalise, shared, self.trainer.device)

    def evaluate(self, network: MultiExit, pictures: Pictures, dtype: torch.dtype | None = None) -> Result:
        """Loss and errors of a network, computed in `dtype` (None: float32)."""
        trainer = self.trainer
        with trainer.stop.breaking():
            model = evaluation.ready(network, trainer.normalise, trainer.devices)
            batches = self._shared_out(evaluation.batches(pictures))
            return evaluation.evaluate(model, batches, trainer.exit_weights.weights, trainer.device, dtype)

    def _shared_out(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items of this process; the processes take them in turn. Before each of them the work may stop."""
        for turn in world.turns(items):
            self.trainer.stop.check()
            yield from turn
