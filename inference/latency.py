"""The time that a model takes: for one picture at a time, and for many at once."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from system.arithmetic import autocast

PASSES = 60  # of one picture; 95 % of them are 57
WARM_UP = 20  # passes: the processor's clock rises, memory is found, GPU kernels are chosen
BATCH, BATCH_PASSES, BATCH_WARM_UP = 128, 5, 1


@dataclass(frozen=True)
class Latency:
    """Milliseconds from the bytes of one picture to the host's logits: their median, and what 95 of 100 pictures stay
    below."""

    median: float
    p95: float


def latency(model: nn.Module, side: int, device: torch.device, dtype: torch.dtype | None = None) -> Latency:
    """The latency of a model that takes 1×side×side×3 uint8 and computes in `dtype` (None: float32), over `PASSES`."""
    milliseconds = [1000 * s for s in _seconds(model, (1, side, side, 3), WARM_UP, PASSES, device, dtype)]
    return Latency(statistics.median(milliseconds), statistics.quantiles(milliseconds, n=20, method="inclusive")[-1])


def throughput(model: nn.Module, side: int, device: torch.device, dtype: torch.dtype | None = None) -> float:
    """Pictures per second in batches of `BATCH`, from their bytes to the host's logits; the median of some batches."""
    shape = (BATCH, side, side, 3)
    return BATCH / statistics.median(_seconds(model, shape, BATCH_WARM_UP, BATCH_PASSES, device, dtype))


def one_by_one(contenders: Sequence[Callable[[Tensor], object]], images: Tensor) -> list[float]:
    """The milliseconds that each contender takes for one of N×H×W×3 uint8 pictures, on average. They take turns, so
    that what else the machine does slows all of them alike."""
    seconds = [0.0] * len(contenders)
    for turn, picture in enumerate((*images[:WARM_UP].split(1), *images.split(1))):
        for index, contender in enumerate(contenders):
            start = time.perf_counter()
            contender(picture)
            seconds[index] += (time.perf_counter() - start) * (turn >= min(WARM_UP, len(images)))
    return [1000 * total / len(images) for total in seconds]


@torch.inference_mode()
def _seconds(
    model: nn.Module,
    shape: tuple[int, ...],
    warm_up: int,
    passes: int,
    device: torch.device,
    dtype: torch.dtype | None,
) -> list[float]:
    """The seconds that each of `passes` takes over pictures of this shape, after some that are not counted."""
    pictures = torch.zeros(shape, dtype=torch.uint8)
    seconds = []
    for _ in range(warm_up + passes):
        start = time.perf_counter()
        with autocast(device, dtype):
            model(pictures.to(device))[-1].cpu()  # waits for the device
        seconds.append(time.perf_counter() - start)
    return seconds[warm_up:]
