"""A whole network as one ONNX file that leaves early: what lies behind an exit is in a branch of an `If` node, which is
run for those pictures only that the exit is not sure of.

It takes one picture at a time, since a branch is taken by a whole batch: 1×H×W×3 uint8 in, 1×classes probabilities and
the position of the exit that they are from out. The policy is inside, and so is what the files of single exits have.
"""

import json
from dataclasses import asdict

import torch
from torch import Tensor, nn

from inference import exported, exporting
from inference.classifier import POLICY, card_of
from inference.early_exit import Rule
from inference.exported import INPUT, OUTPUT, POSITION
from inference.policies import Policy
from inference.saved import SavedModel
from models.folding import folded
from models.multiexit import MultiExit

MOST_EXITS = 30  # each is a branch within that before it; onnxruntime reads no files with many more


class Conditional(nn.Module):
    """A network in which one picture goes no further than to the first exit that is sure of it."""

    def __init__(self, network: MultiExit, normalise: nn.Module, rule: Rule) -> None:
        super().__init__()
        self.normalise, self.rule = normalise, rule
        self.segments, self.heads = map(nn.ModuleList, zip(*network.by_exit(), strict=True))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """1×H×W×3 uint8 -> 1×classes probabilities, and the position, 1 int64, of the exit that they are from."""
        return self._behind(0, self.normalise(images))

    def _behind(self, index: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same from what the exit before number `index` has seen."""
        x = self.segments[index](x)
        probabilities = (self.heads[index](x) / self.rule.temperatures[index]).softmax(1)
        position = torch.full((1,), self.rule.positions[index])
        if index == len(self.segments) - 1:
            return probabilities, position
        return torch.cond(
            probabilities.max() < self.rule.thresholds[index],
            lambda x, probabilities: self._behind(index + 1, x),
            lambda x, probabilities: (probabilities.clone(), position.clone()),
            (x, probabilities),
        )


def content(model: SavedModel, policy: Policy, half: bool) -> bytes:
    """A network with all its exits and a policy as the content of an ONNX file; `half` as for `exporting.content`."""
    network = Conditional(folded(model.network), model.normalise, policy)
    if half:
        exporting.halve(network)
    text = json.dumps({**card_of(model.header), POLICY: asdict(policy)})
    traced = exporting.program(network, exported.black(model.sizing, 1), any_number=False)
    return exporting.as_onnx(traced, [INPUT], [OUTPUT, POSITION], text)
