"""How well a network answers: loss and errors, summed on the device over the batches of an epoch, and functions of all
logits of one exit (N×classes) and the N targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from system import world
from system.errors import UserError


@dataclass(frozen=True)
class Result:
    """Means over the pictures of an epoch so far: the weighted loss, and the top-1 error of each exit in percent."""

    loss: float
    errors: tuple[float, ...]


class Sums:
    """Running sums on the device: loss × pictures, and the wrong answers of each exit."""

    def __init__(self, exits: int, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device)
        self.wrong = torch.zeros(exits, dtype=torch.int64, device=device)
        self.pictures = 0

    def add(self, loss: Tensor, logits: Sequence[Tensor], targets: Tensor) -> None:
        """Count a batch: its mean loss, the logits of each exit (N×classes), its N targets."""
        self.loss += loss.detach() * len(targets)
        self.wrong += torch.stack([z.argmax(1) for z in logits]).ne(targets).sum(1)
        self.pictures += len(targets)

    def include(self, others: "Sums") -> None:
        """Count what others have counted."""
        self.loss += others.loss
        self.wrong += others.wrong
        self.pictures += others.pictures

    def total(self) -> "Sums":
        """The sums over all processes, in place."""
        world.total(self.loss)
        world.total(self.wrong)
        self.pictures = int(world.total(torch.tensor(self.pictures, device=self.wrong.device)))
        return self

    def result(self) -> Result:
        """The means so far; waits for the device."""
        wrong = self.wrong.tolist()
        return Result(self.loss.item() / self.pictures, tuple(100 * count / self.pictures for count in wrong))

    def state(self) -> dict[str, Any]:
        """The sums, for a training state."""
        return {"loss": self.loss, "wrong": self.wrong, "pictures": self.pictures}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.loss.copy_(state["loss"])
        self.wrong.copy_(state["wrong"])
        self.pictures = state["pictures"]


def check_finite(answers: Tensor, who: str) -> None:
    """Raise UserError where logits or probabilities, N×classes, are not finite."""
    if not answers.isfinite().all():
        raise UserError(
            f"{who} answers with numbers that are not finite; its weights are damaged, or too large for half "
            "precision, where float will do"
        )


def top_error(logits: Tensor, targets: Tensor, k: int = 1) -> float:
    """The part of the pictures whose class is not among the `k` that answer highest, in percent."""
    answers = logits.argmax(1, keepdim=True) if k == 1 else logits.topk(k).indices
    return 100 * (answers != targets[:, None]).all(1).sum().item() / len(targets)


def calibration_error(logits: Tensor, targets: Tensor, bins: int = 15) -> float:
    """The expected calibration error in percent: how far the top probability and the part of right answers lie apart,
    in the mean over the pictures, which are put in `bins` bins of equal width by their top probability.

    Naeini et al., AAAI 2015; Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599, equation 3.
    """
    confidence, right = _confidence(logits, targets)
    index = (confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)  # bin m is ((m - 1) / bins, m / bins]
    gaps = torch.bincount(index, right.double() - confidence, minlength=bins)
    return 100 * gaps.abs().sum().item() / len(targets)


def failure_auroc(logits: Tensor, targets: Tensor) -> float | None:
    """How well confidence ranks mistakes: the probability that a right answer has a higher top probability than a wrong
    one, where a tie counts half. 1: every mistake is less sure than every right answer; 0.5: confidence tells nothing.
    None where all answers are right, or all wrong.

    The area under the ROC curve as in Hendrycks and Gimpel, arXiv 1610.02136, by the ranks of Mann and Whitney.
    """
    confidence, right = _confidence(logits, targets)
    wrong_count = len(right) - (right_count := right.sum().item())
    if not right_count or not wrong_count:
        return None
    _, place, counts = confidence.unique(return_inverse=True, return_counts=True)
    ranks = counts.cumsum(0) - (counts - 1) / 2  # of tied values: the mean of those that they share
    above = ranks.double()[place[right]].sum().item() - right_count * (right_count + 1) / 2
    return above / (right_count * wrong_count)


def _confidence(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The top probability of each of N pictures (float64: in float32 too many of them would be 1), and whether the
    answer is right."""
    confidence, answers = logits.double().softmax(1).max(1)
    return confidence, answers == targets


def confusion(logits: Tensor, targets: Tensor) -> list[dict[int, int]]:
    """For each class the classes that its pictures are taken for, and how many of them; a matrix of ten thousand
    classes would be nothing but zeros."""
    classes = logits.shape[1]
    pairs, counts = (targets * classes + logits.argmax(1)).unique(return_counts=True)
    found: list[dict[int, int]] = [{} for _ in range(classes)]
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        found[pair // classes][pair % classes] = count
    return found
