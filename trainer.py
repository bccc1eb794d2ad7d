"""Multi-way training: one epoch of it, evaluation, and the learning rate as a pure function of progress.

A `model` here takes N×32×32×3 uint8 pictures and returns a list of logits, shallow to deep. Losses and errors are
summed on the device; the host reads them when it shows them, at most once a second, and at the end of an epoch.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from datasets.pictures import Pictures
from models.losses import multiway_loss

EVALUATION_BATCH = 500
WARM_UP = 0.2  # the part of a one-cycle run in which the learning rate rises


@dataclass(frozen=True)
class Result:
    """Means over the pictures of an epoch so far: the weighted loss, and the error of each exit in percent."""

    loss: float
    errors: tuple[float, ...]


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


def train_epoch(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    weights: Sequence[float],
    rate_of_step: Callable[[int], float],
    device: torch.device,
    show: Callable[[int, Result | None], None],
) -> Result:
    """One epoch: for each batch one backward pass through the weighted sum of all losses, one step.

    `rate_of_step` gives the learning rate of step 0, 1, …; `show` is told the size of each batch and, at most once
    a second, the result so far.
    """
    model.train()
    sums = _Sums(len(weights), device)
    last_shown = time.monotonic()
    for step, (images, targets) in enumerate(batches):
        images = images.to(device, non_blocking=True)
        targets = targets.to(device, non_blocking=True)
        for group in optimizer.param_groups:
            group["lr"] = rate_of_step(step)
        logits = model(images)
        loss = multiway_loss(logits, targets, weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        sums.add(loss, logits, targets)
        due = time.monotonic() - last_shown >= 1.0
        show(len(targets), sums.result() if due else None)
        last_shown = time.monotonic() if due else last_shown
    return sums.result()


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    pictures: Pictures,
    weights: Sequence[float],
    device: torch.device,
    show: Callable[[int], None] = lambda count: None,
) -> Result:
    """Loss and errors over all pictures, in batches of 500; `show` is told the size of each."""
    model.eval()
    sums = _Sums(len(weights), device)
    for images, targets in zip(
        pictures.images.split(EVALUATION_BATCH), pictures.targets.split(EVALUATION_BATCH), strict=True
    ):
        images, targets = images.to(device), targets.to(device)
        logits = model(images)
        sums.add(multiway_loss(logits, targets, weights), logits, targets)
        show(len(targets))
    return sums.result()


class _Sums:
    """Running sums on the device: loss × pictures, and the wrong answers of each exit."""

    def __init__(self, exits: int, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device)
        self.wrong = torch.zeros(exits, dtype=torch.int64, device=device)
        self.pictures = 0

    def add(self, loss: Tensor, logits: Sequence[Tensor], targets: Tensor) -> None:
        self.loss += loss.detach() * len(targets)
        self.wrong += torch.stack([z.argmax(1) for z in logits]).ne(targets).sum(1)
        self.pictures += len(targets)

    def result(self) -> Result:
        wrong = self.wrong.tolist()
        return Result(self.loss.item() / self.pictures, tuple(100 * count / self.pictures for count in wrong))
