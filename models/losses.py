"""The loss of multi-way backpropagation: the weighted sum of the exits' cross-entropies (arXiv 1611.01773), and what
the exits may learn from each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Objective:
    """What a step makes smaller: the multi-way loss and, with `distill` above 0, that many times the distillation."""

    smoothing: float = 0.0
    distill: float = 0.0
    temperature: float = 1.0
    teacher: str = "last"

    def __call__(self, logits: Sequence[Tensor], targets: Tensor, weights: Sequence[float]) -> tuple[Tensor, Tensor]:
        """The scalar to differentiate, and the cross-entropy of each exit, detached."""
        loss, losses = multiway_loss(logits, targets, weights, self.smoothing)
        if self.distill:
            loss = loss + self.distill * distillation(logits, weights, self.temperature, self.teacher)
        return loss, losses


def multiway_loss(
    logits: Sequence[Tensor], targets: Tensor, weights: Sequence[float], smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Σ wᵢ · CEᵢ, a scalar, and the CEᵢ, one for each of K exits, detached; `logits` holds N×classes for each
    exit, `targets` N class indices, or N×classes probabilities. A part `smoothing` of each target is spread over all
    classes (Szegedy et al., "Rethinking the Inception Architecture", arXiv 1512.00567, section 7).

    An exit of weight 0 takes no part, so that its head neither costs a backward pass nor moves.
    """
    losses = [
        F.cross_entropy(z if w else z.detach(), targets, label_smoothing=smoothing)
        for w, z in zip(weights, logits, strict=True)
    ]
    weighted = [w * loss for w, loss in zip(weights, losses, strict=True) if w]
    return sum(weighted[1:], start=weighted[0]), torch.stack(losses).detach()


def distillation(
    logits: Sequence[Tensor], weights: Sequence[float], temperature: float, teacher: str
) -> Tensor | float:
    """Σ wᵢ · T² · KL(teacher ‖ exit i) of the softmax at temperature T (Hinton et al., "Distilling the Knowledge in a
    Neural Network", arXiv 1503.02531), where the network is its own teacher: its `last` exit teaches the others (Zhang
    et al., "Be Your Own Teacher", arXiv 1905.08094), or the `ensemble`, the mean of the logits, teaches all of them.
    The teacher learns nothing from it. Exits of weight 0, which learn nothing, do not teach either.
    """
    trained = [(w, z) for w, z in zip(weights, logits, strict=True) if w]
    last = trained[-1][1]
    knowledge = last if teacher == "last" else torch.stack([z for _, z in trained]).mean(0)
    wanted = F.log_softmax(knowledge.detach() / temperature, 1)
    students = [(w, z) for w, z in trained if z is not knowledge]
    return temperature**2 * sum(
        w * F.kl_div(F.log_softmax(z / temperature, 1), wanted, reduction="batchmean", log_target=True)
        for w, z in students
    )
