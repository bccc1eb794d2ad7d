"""Batch normalisation over a batch that several processes share.

PyTorch's SyncBatchNorm runs on GPUs only, and knows no process without pictures.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from system import world


def normalised(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, takes_part: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """N×C×H×W -> the same, normalised, with the mean (C) and the variance (C) of all processes' values of a channel,
    and how many these are. `takes_part` says whether those of this process count."""
    return _Normalise.apply(x, weight, bias, eps, takes_part)


class _Normalise(torch.autograd.Function):
    """The gradient is that of Ioffe and Szegedy, arXiv 1502.03167, section 3, whose sums over the batch are sums over
    all processes."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, eps: float, takes_part: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean = x.float().mean((0, 2, 3))  # torch.var_mean takes many times as long on processors
        variance = (x - mean[:, None, None]).square().mean((0, 2, 3)).double()
        mean = mean.double()
        count = mean.new_full((1,), x.numel() // len(mean) if takes_part else 0)  # made on the device: nothing waits
        totals = world.total(torch.cat([count * mean, count * (variance + mean.square()), count]))
        count, (mean, square) = totals[-1:], (totals[:-1] / totals[-1]).chunk(2)
        mean, variance, count = mean.float(), (square - mean.square()).float(), count.float()
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps, ctx.takes_part = eps, takes_part
        ctx.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance, count = ctx.saved_tensors
        gradient, plain = gradient.float(), F.batch_norm(x.float(), mean, variance, eps=ctx.eps)
        of_weight, of_bias = (gradient * plain).sum((0, 2, 3)), gradient.sum((0, 2, 3))
        shares = world.total(torch.cat([of_weight, of_bias])) / count
        by_value, by_mean = (share[:, None, None] for share in shares.chunk(2))
        if ctx.takes_part:
            gradient = gradient - by_mean - plain * by_value
        scale = weight * torch.rsqrt(variance + ctx.eps)
        return (gradient * scale[:, None, None]).to(x.dtype), of_weight, of_bias, None, None
