"""Batch normalisation, in a form that `torch.compile` turns into few and parallel loops.

Ioffe and Szegedy, "Batch Normalization", arXiv 1502.03167. PyTorch's own kernel is the faster one when it is called
as it is. Compiled, it becomes a chain of loops of which those over the batch run on one core when there are 16
channels; the same arithmetic written out below is fused with the ReLU behind it and the addition before it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models import wholebatch


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, computed from sums over each picture when it is compiled for training, and from the batch of
    all processes in `over_all_processes`."""

    takes_part: bool | None = None  # in the batch of all processes; None: it has one of its own

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W -> N×C×H×W."""
        if self.training and self.takes_part is not None:
            x, *statistics = wholebatch.normalised(x, self.weight, self.bias, self.eps, self.takes_part)
            self._remember(*statistics)
            return x
        if not (self.training and torch.compiler.is_compiling()):
            return super().forward(x)
        count, channels = x.shape[:2]
        pixels = x.float()  # statistics need more than 16 bits
        mean = pixels.mean((2, 3)).mean(0)  # two sums, so that the first can run on all cores
        variance = (pixels.square().mean((2, 3)).mean(0) - mean.square()).clamp(min=0)
        self._remember(mean.detach(), variance.detach(), x.numel() // channels)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        scale, shift = (v.expand(count, channels)[:, :, None, None] for v in (scale, shift))
        return (pixels * scale + shift).to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, values: int | Tensor) -> None:
        """Move the running statistics towards those of this batch; the variance is the unbiased one."""
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (values / (values - 1)), self.momentum)


@contextmanager
def over_all_processes(module: nn.Module, takes_part: bool) -> Iterator[None]:
    """While open, the batch norms of a module in training take the statistics of the batch that all processes share.

    All processes go through it, forward and backward; one that does not take part has pictures that do not count.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, BatchNorm)]
    for norm in norms:
        norm.takes_part = takes_part
    try:
        yield
    finally:
        for norm in norms:
            norm.takes_part = None
