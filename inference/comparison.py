"""An exported file beside the exit file that it was made from: how far their answers are apart."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.transforms import Normalise
from inference.classifier import Model
from inference.saved import SavedModel

NOISE = 256  # pictures


@dataclass(frozen=True)
class Comparison:
    """What an exit and its exported file say about the same pictures."""

    pictures: int
    difference: float  # of two probabilities, the largest
    before: float  # error of the exit, in percent
    after: float  # error of the exported file


@torch.inference_mode()
def compare(model: SavedModel, exported: Model, batches: Iterable[tuple[Tensor, Tensor]]) -> Comparison:
    """Ask both about batches of N×H×W×3 uint8 pictures and N targets; the exit as it was trained, nothing folded."""
    normalise = Normalise(model.header["mean"], model.header["std"])
    pictures, difference, wrong = 0, 0.0, [0, 0]
    for images, targets in batches:
        answers = [model.network(normalise(images))[-1].softmax(1), exported.probabilities(images)]
        apart = (answers[0] - answers[1]).abs().max().item()
        difference = apart if not apart <= difference else difference  # a NaN stays
        wrong = [w + int((answer.argmax(1) != targets).sum()) for w, answer in zip(wrong, answers, strict=True)]
        pictures += len(targets)
    before, after = (100 * w / pictures for w in wrong)
    return Comparison(pictures, difference, before, after)


def noise(side: int) -> list[tuple[Tensor, Tensor]]:
    """Pictures of side×side pixels for a comparison where there are no others: always the same, of every value, with
    targets that mean nothing."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (NOISE, side, side, 3), dtype=torch.uint8, generator=generator)
    return [(images, torch.zeros(NOISE, dtype=torch.int64))]
