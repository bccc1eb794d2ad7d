"""Multi-way training: one epoch of it, and the learning rate as a pure function of progress.

Losses and errors are summed on the device; the host reads them when it shows them, at most once a second, and at the
end of an epoch. In between it only hands over work, so that a GPU never waits for it.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import devices
import evaluation
from datasets.pictures import Pictures
from evaluation import Result, Sums
from finite import FiniteWatch
from models.auxresnet import AuxResNet
from models.losses import multiway_loss

AUTOCAST = {"float": None, "bf16": torch.bfloat16, "half": torch.float16}
WARM_UP = 0.2  # the part of a one-cycle run in which the learning rate rises


def learning_rate(progress: float, schedule: str, peak: float) -> float:
    """The learning rate after a part `progress` (0 … 1) of all steps.

    `step`: divided by 10 after 40 % and again after 60 %, as the authors did; `cosine`: half a cosine down to 0;
    `onecycle`: a straight line from 1 % to 100 % of `peak` over the first 20 %, then half a cosine down to 0.
    """
    if schedule == "step":
        return peak * (1.0 if progress < 0.4 else 0.1 if progress < 0.6 else 0.01)
    if schedule == "onecycle" and progress < WARM_UP:
        return peak * (0.01 + 0.99 * progress / WARM_UP)
    start = WARM_UP if schedule == "onecycle" else 0.0
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - start) / (1 - start)))


class Trainer:
    """A network on its devices with its optimizer.

    `normalise` turns N×32×32×3 uint8 pictures into the network's input; pictures travel as bytes. `weights` are those
    of the exits' losses; the options that matter are LR, momentum, weightDecay, batchsize, precision, compile.
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
        self.device, self.full_batch, self.dtype = where[0], options.batchsize, AUTOCAST[options.precision]
        self.model = devices.place(nn.Sequential(normalise, network), where)
        self.compiled = torch.compile(self.model, dynamic=False) if options.compile else self.model
        self.optimizer = torch.optim.SGD(
            network.parameters(),
            lr=options.LR,
            momentum=options.momentum,
            nesterov=options.momentum > 0,
            weight_decay=options.weightDecay,
            fused=True,
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        self.watch = FiniteWatch(network, gradients=not self.scaler.is_enabled())

    def train_epoch(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        rate_of_step: Callable[[int], float],
        sums: Sums,
        show: Callable[[int, Result | None], None],
        epoch: int = 0,
        first_step: int = 0,
    ) -> Result:
        """One epoch, or the rest of it: for each batch one backward pass through the weighted sum of all losses, one
        step.

        `rate_of_step` gives the learning rate of step 0, 1, …; what comes out is added to `sums`; `show` is told the
        size of each batch after its step and, at most once a second, the result so far. Raises NotFinite, at most a
        second or so late, for a loss or a gradient that is infinite or not a number.
        """
        self.model.train()
        self.watch.begin(epoch)
        last_shown = time.monotonic()
        for step, (images, targets) in enumerate(batches, first_step):
            for group in self.optimizer.param_groups:
                group["lr"] = rate_of_step(step)
            images, targets = (tensor.to(self.device, non_blocking=True) for tensor in (images, targets))
            loss, losses, logits = self._step(images, targets)
            sums.add(loss, logits, targets)
            self.watch.add(step, losses)
            due = time.monotonic() - last_shown >= 1.0
            if due:
                self.watch.check()
            show(len(targets), sums.result() if due else None)
            last_shown = time.monotonic() if due else last_shown
        self.watch.check()
        return sums.result()

    def _step(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The weighted loss, the loss of each exit, the logits of each exit."""
        model = self.compiled if len(targets) == self.full_batch else self.model  # compiled code is for one size
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            logits = model(images)
        logits = [z.float() for z in logits]
        loss, losses = multiway_loss(logits, targets, self.weights)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)  # with a scaler: skipped, at a lower scale, if a gradient is not finite
        self.scaler.update()
        return loss, losses, logits

    def evaluate(self, pictures: Pictures, show: Callable[[int], None]) -> Result:
        """Loss and errors over all pictures, in float32; `show` is told the size of each batch."""
        model = evaluation.ready(self.network, self.normalise, self.where)
        return evaluation.evaluate(model, pictures, self.weights, self.where[0], show)

    def state(self) -> dict[str, Any]:
        """What training needs to go on, besides the weights of the network."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
