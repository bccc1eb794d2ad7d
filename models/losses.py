"""The loss of multi-way backpropagation: the weighted sum of the exits' cross-entropies (arXiv 1611.01773)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def multiway_loss(logits: Sequence[Tensor], targets: Tensor, weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Σ wᵢ · CEᵢ, a scalar, and the CEᵢ, one for each of K exits, without history; `logits` holds N×classes for each
    exit, `targets` N class indices.

    An exit of weight 0 takes no part, so that its head neither costs a backward pass nor moves.
    """
    losses = [F.cross_entropy(z if w else z.detach(), targets) for w, z in zip(weights, logits, strict=True)]
    weighted = [w * loss for w, loss in zip(weights, losses, strict=True) if w]
    return sum(weighted[1:], start=weighted[0]), torch.stack(losses).detach()
