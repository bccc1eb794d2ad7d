"""Multi-way training: one epoch of it, at rates and weights that are pure functions of progress.

Losses and errors are summed on the device; the host reads them when it shows them, at most once a second, and at the
end of an epoch. In between it only hands over work, so that a GPU never waits for it.
"""

import argparse
import copy
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from datasets.pictures import Pictures
from inference import evaluation
from inference.evaluation import Result, Sums
from models.auxresnet import AuxResNet
from models.losses import Objective
from system import devices
from system.arithmetic import DTYPES, autocast
from training import schedules
from training.averaging import Average
from training.finite import FiniteWatch
from training.optimizers import optimizers

REFERENCE_BATCH = 128  # the batch size that a scaled learning rate is given for


class Trainer:
    """A network on its devices with its optimizer.

    `normalise` turns N×32×32×3 uint8 pictures into the network's input; pictures travel as bytes. `weights` are those
    of the exits' losses; the options that matter are those of training, precision and compile.
    """

    def __init__(
        self,
        network: AuxResNet,
        normalise: nn.Module,
        weights: Sequence[float],
        where: list[torch.device],
        options: argparse.Namespace,
    ) -> None:
        self.network, self.normalise, self.weights, self.where = network, normalise, weights, where
        self.options = options
        self.objective = Objective(options.labelSmoothing, options.distill, options.temperature, options.teacher)
        self.device, self.full_batch, self.dtype = where[0], options.batchsize, DTYPES[options.precision]
        self.model = devices.place(nn.Sequential(normalise, network), where)
        self.compiled = torch.compile(self.model, dynamic=False) if options.compile else self.model
        self.average = Average(network, options.ema) if options.ema else None
        self.optimizers = optimizers(network, options, torch.bfloat16 if options.precision == "bf16" else torch.float32)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        self.watch = FiniteWatch(network, gradients=not self.scaler.is_enabled())

    def learning_rate(self, progress: float) -> float:
        """The learning rate after a part `progress` of all steps; with `--scaleLR` in proportion to the batch size
        (Goyal et al., arXiv 1706.02677, section 2.1)."""
        scale = self.options.batchsize / REFERENCE_BATCH if self.options.scaleLR else 1.0
        return schedules.learning_rate(progress, self.options.schedule, scale * self.options.LR)

    def train_epoch(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        progress_of_step: Callable[[int], float],
        sums: Sums,
        show: Callable[[int, Result | None], None],
        epoch: int = 0,
        first_step: int = 0,
    ) -> Result:
        """One epoch, or the rest of it: for each batch one backward pass through the weighted sum of all losses, one
        step.

        `progress_of_step` gives the part of the whole training that is done before step 0, 1, …; what comes out is
        added to `sums`; `show` is told the size of each batch after its step and, at most once a second, the result so
        far. Raises NotFinite, at most a second or so late, for a loss or a gradient that is infinite or not a number.
        """
        self.model.train()
        self.watch.begin(epoch)
        last_shown = time.monotonic()
        for step, (images, targets) in enumerate(batches, first_step):
            progress = progress_of_step(step)
            for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
                group["lr"] = self.learning_rate(progress)
            weights = schedules.exit_weights(progress, self.options.exitSchedule, self.weights)
            images, targets = (tensor.to(self.device, non_blocking=True) for tensor in (images, targets))
            loss, losses, logits = self._step(images, targets, weights)
            sums.add(loss, logits, targets)
            self.watch.add(step, losses)
            due = time.monotonic() - last_shown >= 1.0
            if due:
                self.watch.check()
            show(len(targets), sums.result() if due else None)
            last_shown = time.monotonic() if due else last_shown
        self.watch.check()
        return sums.result()

    def _step(self, images: Tensor, targets: Tensor, weights: Sequence[float]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The loss that was made smaller, the loss of each exit, the logits of each exit."""
        model = self.compiled if len(targets) == self.full_batch else self.model  # compiled code is for one size
        with autocast(self.device, self.dtype):
            logits = model(images)
        logits = [z.float() for z in logits]
        loss, losses = self.objective(logits, targets, weights)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)  # with a scaler: skipped, at a lower scale, if a gradient is not finite
        self.scaler.update()
        if self.average:
            self.average.update()
        return loss, losses, logits

    def judged(self, sample: Tensor, full_size: bool, show: Callable[[int], None] = lambda count: None) -> AuxResNet:
        """The network to evaluate and to keep: the one that is trained, or a copy with the averaged weights.

        Unless the epoch gave it batch norm statistics for its weights, on pictures of `full_size`, these are measured
        on `sample`; `show` is told the size of each batch.
        """
        if full_size and not self.average:
            return self.network
        network = copy.deepcopy(self.average.network if self.average else self.network)
        return evaluation.measure_statistics(network, self.normalise, sample, self.device, show)

    def evaluate(
        self, network: AuxResNet, pictures: Pictures, show: Callable[[int], None], exact: bool = True
    ) -> Result:
        """Loss and errors of a network over all pictures, in float32 (`exact`) or in the precision of training; `show`
        is told the size of each batch."""
        model = evaluation.ready(network, self.normalise, self.where)
        dtype = None if exact else self.dtype
        return evaluation.evaluate(model, pictures, self.weights, self.where[0], show, dtype)

    def state(self) -> dict[str, Any]:
        """What training needs to go on, besides the weights of the network."""
        average = self.average.state() if self.average else None
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "average": average,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        saved = state["optimizers"] if "optimizers" in state else [state["optimizer"]]  # one, before there was Muon
        for optimizer, its in zip(self.optimizers, saved, strict=True):
            optimizer.load_state_dict(its)
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.restore(state["average"])
