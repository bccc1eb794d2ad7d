"""The time that a model takes: for one picture at a time, and for many at once."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from inference.evaluation import batch_size
from system.machine import Machine

PASSES = 60  # of one picture; 95 % of them are 57
WARM_UP = 20  # passes: the processor's clock rises, memory is found, GPU kernels are chosen
BATCH, BATCH_PASSES, BATCH_WARM_UP = 128, 5, 1
LEAST = 16  # pictures of a batch, however large they are

Asked = Callable[[Tensor], object]  # about N×side×side×3 uint8 pictures on the host; it answers on the host


class Latency(NamedTuple):
    """Milliseconds from the bytes of one picture to an answer on the host: their mean, their median, and what 95 of 100
    pictures stay below."""

    mean: float
    median: float
    p95: float


def of(seconds: Sequence[float]) -> Latency:
    """The latency of a model that took so many seconds for each of some pictures."""
    milliseconds = [1000 * second for second in seconds]
    p95 = np.percentile(milliseconds, 95).item()
    return Latency(statistics.fmean(milliseconds), statistics.median(milliseconds), p95)


def in_turns(contenders: Sequence[Asked], inputs: Sequence[Tensor], warm_up: int) -> list[list[float]]:
    """The seconds that each contender takes for each of N inputs: for each contender N. They take turns, so that what
    else the machine does slows all of them alike; the first inputs, `warm_up` of them, are asked about twice, and count
    the second time."""
    seconds: list[list[float]] = [[] for _ in contenders]
    for x in (*inputs[:warm_up], *inputs):
        for contender, taken in zip(contenders, seconds, strict=True):
            start = time.perf_counter()
            contender(x)
            taken.append(time.perf_counter() - start)
    return [taken[-len(inputs) :] for taken in seconds]


def latencies(models: Sequence[nn.Module], side: int, machine: Machine) -> list[Latency]:
    """The latency of each of some models that take 1×side×side×3 uint8, on the machine's first device, over `PASSES` in
    which they take turns."""
    return [of(taken) for taken in _seconds(models, (1, side, side, 3), WARM_UP, PASSES, machine)]


def throughputs(models: Sequence[nn.Module], side: int, machine: Machine) -> list[float]:
    """The pictures per second of each of some models in batches of `BATCH`, or of fewer if they are large, from their
    bytes to logits on the host; the median of some batches, in which they take turns."""
    shape = (timed_batch_size(side), side, side, 3)
    seconds = _seconds(models, shape, BATCH_WARM_UP, BATCH_PASSES, machine)
    return [shape[0] / statistics.median(taken) for taken in seconds]


def timed_batch_size(side: int) -> int:
    """How many pictures of side×side pixels are timed at once: `BATCH`, of large ones fewer, because of their memory,
    but so many that they are a batch."""
    return max(LEAST, batch_size(side, BATCH))


@torch.inference_mode()
def _seconds(
    models: Sequence[nn.Module], shape: tuple[int, ...], warm_up: int, passes: int, machine: Machine
) -> list[list[float]]:
    """The seconds that each model takes for each of `passes` over pictures of this shape, after some that are not
    counted."""

    def ask(model: nn.Module, pictures: Tensor) -> None:
        with machine.autocast():
            model(pictures.to(machine.device))[-1].cpu()  # waits for the device

    asked = [partial(ask, model) for model in models]
    return in_turns(asked, [torch.zeros(shape, dtype=torch.uint8)] * passes, warm_up)
