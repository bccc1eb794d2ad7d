"""The exponential moving average of a network's weights, which follows training with less noise.

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992. Batch norm statistics are not
averaged: the statistics of averaged weights differ from the average of the statistics, so that they have to be measured
(`evaluation.measure_statistics`). The decay rises, so that the first weights are soon forgotten; that of
`torch.optim.swa_utils.get_ema_multi_avg_fn` is one throughout.
"""

import copy
from typing import Any

import torch

from models.multiexit import MultiExit
from training.likeness import like


class Average:
    """A copy of a network that holds the moving average of its weights.

    After n steps the average moves by 1 - min(decay, (1 + n) / (10 + n)) of the way, so that the weights that training
    began with are soon forgotten.
    """

    def __init__(self, network: MultiExit, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.weights, self.followed = list(self.network.parameters()), list(network.parameters())

    def update(self) -> None:
        """Take in the weights after a step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(self.weights, self.followed, 1 - decay)
        self.steps += 1

    def state(self) -> dict[str, Any]:
        """The average, for a training state."""
        return {"weights": dict(self.network.named_parameters()), "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave. Raises ValueError where it is that of another network."""
        found = like(state, self.state(), "average")
        self.network.load_state_dict(found["weights"], strict=False)
        self.steps = found["steps"]
