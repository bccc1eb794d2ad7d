"""What changes in the course of a training, as pure functions of `progress`, the part of all its steps that is done
(0 … 1): the same whether a run was interrupted or not."""

import math
from dataclasses import dataclass

WARM_UP = 0.2  # the part of a one-cycle run in which the learning rate rises
SMALL_PART = 0.5  # the part of a run in which pictures may be smaller than they are
SIDE_STEP = 8  # pixels by which they grow


@dataclass(frozen=True)
class LearningRate:
    """The learning rate in the course of a training.

    `step`: `peak`, divided by 10 after 40 % and again after 60 %, as the authors did; `cosine`: half a cosine from
    `peak` down to 0; `onecycle`: a straight line from 1 % to 100 % of `peak` over the first 20 %, then half a cosine
    down to 0.
    """

    peak: float = 0.1
    schedule: str = "step"

    def __call__(self, progress: float) -> float:
        """The learning rate after a part `progress` of all steps."""
        if self.schedule == "step":
            return self.peak * (1.0 if progress < 0.4 else 0.1 if progress < 0.6 else 0.01)
        if self.schedule == "onecycle" and progress < WARM_UP:
            return self.peak * (0.01 + 0.99 * progress / WARM_UP)
        start = WARM_UP if self.schedule == "onecycle" else 0.0
        return self.peak * 0.5 * (1 + math.cos(math.pi * (progress - start) / (1 - start)))


@dataclass(frozen=True)
class ExitWeights:
    """The weights of the exits' losses in the course of a training, shallow to deep.

    `constant`: as they are; `deepen`: the shallowest falls in a straight line from 1.5 to 0.5 times its weight, the
    deepest rises from 0.5 to 1.5 times, those between them in proportion to their order.
    """

    weights: tuple[float, ...]
    schedule: str = "constant"

    def __call__(self, progress: float) -> tuple[float, ...]:
        """The weights after a part `progress` of all steps."""
        weights = self.weights
        if self.schedule == "constant" or len(weights) == 1:
            return weights
        depths = (index / (len(weights) - 1) for index in range(len(weights)))
        return tuple(w * (1 + (progress - 0.5) * (2 * depth - 1)) for w, depth in zip(weights, depths, strict=True))


def side(progress: float, first: int, full: int) -> int:
    """The side of the pictures in pixels after a part `progress` of all steps: from `first` to `full` in steps of 8
    over the first half of the training, `full` from there on."""
    smaller = range(first, full, SIDE_STEP)
    stage = int(progress / SMALL_PART * len(smaller))
    return smaller[stage] if stage < len(smaller) else full
