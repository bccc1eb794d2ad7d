"""The time that a model takes for one picture."""

import statistics
import time

import torch
from torch import nn

from system.arithmetic import autocast

PASSES = 25


@torch.inference_mode()
def latency(model: nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> float:
    """Milliseconds from the bytes of one picture to the host's logits, the median of `PASSES`; `model` takes
    1×32×32×3 uint8 and computes in `dtype` (None: float32)."""
    picture = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    seconds = []
    for _ in range(2 * PASSES):  # the first half warms up
        start = time.perf_counter()
        with autocast(device, dtype):
            model(picture.to(device))[-1].cpu()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[PASSES:])
