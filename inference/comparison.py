"""Exported files beside the exits that they were made from: how far their answers are apart."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.pictures import Pictures
from inference.classifier import Answers
from inference.early_exit import Rule, probable, simulate
from inference.saved import SavedModel

NOISE = 256  # pictures


@dataclass(frozen=True)
class Comparison:
    """What exits and what was made from them say about the same pictures."""

    pictures: int
    difference: float  # how far a probability of the exits is from what the files make of it, at most
    before: float  # error of the exits, in percent
    after: float  # error of the files
    histogram: tuple[int, ...]  # pictures that leave at each exit of the files
    moved: int  # pictures that leave at another exit than before


@torch.inference_mode()
def compare(model: SavedModel, rule: Rule, exported: Answers, batches: Iterable[tuple[Tensor, Tensor]]) -> Comparison:
    """Ask both about batches of N×H×W×3 uint8 pictures and N targets; the exits as they were trained, nothing folded,
    by a rule that says which of them answers.

    Where a file lets a picture leave at another exit than the rule does, because a probability was rounded to the other
    side of a threshold, its distance from the threshold counts as a difference.
    """
    normalise = model.normalise
    thresholds, number = torch.tensor(rule.thresholds)[:, None], torch.arange(len(rule.positions))[:, None]  # K×1
    differences, exits, moved, wrong = [], [], 0, [0, 0]
    for images, targets in batches:
        logits = model.network(normalise(images))
        before = simulate(logits, rule)
        probabilities, positions = exported(images)
        left = torch.tensor([rule.positions.index(position) for position in positions.tolist()])
        expected = torch.stack([probable(z, t) for z, t in zip(logits, rule.temperatures, strict=True)])  # K×N×C
        lacking = thresholds - expected.amax(2)  # K×N, how much an exit lacks to be sure
        # How far the rule's probabilities lie on the other side of the thresholds than those of the file.
        misjudged = torch.where(number < left, -lacking, torch.where(number == left, lacking, 0))
        differences += [(expected[left, torch.arange(len(left))] - probabilities).abs().amax(), misjudged.amax()]
        exits.append(left)
        moved += int((left != before.exits).sum())
        classes = (before.classes, probabilities.argmax(1))
        wrong = [count + int((found != targets).sum()) for count, found in zip(wrong, classes, strict=True)]
    histogram = torch.cat(exits).bincount(minlength=len(rule.positions)).tolist()
    errors = [100 * count / sum(histogram) for count in wrong]
    difference = torch.stack(differences).amax().item()  # NaN, if one is
    return Comparison(sum(histogram), difference, *errors, tuple(histogram), moved)


def noise(model: SavedModel) -> Pictures:
    """Pictures for a comparison where a model has no others: always the same, of every value, with targets that mean
    nothing."""
    generator, side = torch.Generator().manual_seed(0), model.sizing.side
    images = torch.randint(0, 256, (NOISE, side, side, 3), dtype=torch.uint8, generator=generator)
    return Pictures(images, torch.zeros(NOISE, dtype=torch.int64), tuple(model.header["classes"]))
