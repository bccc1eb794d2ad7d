"""The loss of multi-way backpropagation: the weighted sum of the exits' cross-entropies (arXiv 1611.01773)."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def multiway_loss(logits: Sequence[Tensor], targets: Tensor, weights: Sequence[float]) -> Tensor:
    """Σ wᵢ · CEᵢ, a scalar; `logits` holds N×classes for each exit, `targets` N class indices.

    An exit of weight 0 takes no part, so that its head neither costs a backward pass nor moves.
    """
    losses = [w * F.cross_entropy(z, targets) for w, z in zip(weights, logits, strict=True) if w]
    return sum(losses[1:], start=losses[0])
