"""Batch normalisation, in a form that `torch.compile` turns into few and parallel loops.

Ioffe and Szegedy, "Batch Normalization", arXiv 1502.03167. PyTorch's own kernel is the faster one when it is called
as it is. Compiled, it becomes a chain of loops of which those over the batch run on one core when there are 16
channels; the same arithmetic written out below is fused with the ReLU behind it and the addition before it.
"""

import torch
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, computed from sums over each picture when it is compiled for training."""

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W -> N×C×H×W."""
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

    def _remember(self, mean: Tensor, variance: Tensor, values: int) -> None:
        """Move the running statistics towards those of this batch; the variance is the unbiased one."""
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (values / (values - 1)), self.momentum)
