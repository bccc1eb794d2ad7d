"""What changes in the course of a training, as pure functions of `progress`, the part of all its steps that is done
(0 … 1): the same whether a run was interrupted or not."""

import math
from dataclasses import dataclass

WARM_UP = 0.2  # the part of a one-cycle run in which the learning rate rises
SMALL_PART = 0.5  # the part of a run in which pictures may be smaller than they are
SIDE_STEP = 8  # pixels by which they grow


def _step(progress: float) -> float:
    """A tenth after 40 %, a hundredth after 60 %, as the authors did."""
    return 1.0 if progress < 0.4 else 0.1 if progress < 0.6 else 0.01


def _cosine(progress: float, start: float = 0.0) -> float:
    """Half a cosine down to 0, from `start` on."""
    return 0.5 * (1 + math.cos(math.pi * (progress - start) / (1 - start)))


def _onecycle(progress: float) -> float:
    """A straight line from a hundredth up over the first 20 %, then half a cosine down to 0."""
    if progress < WARM_UP:
        return 0.01 + 0.99 * progress / WARM_UP
    return _cosine(progress, WARM_UP)


SCHEDULES = {"step": _step, "cosine": _cosine, "onecycle": _onecycle}


@dataclass(frozen=True)
class LearningRate:
    """The learning rate in the course of a training: the part of `peak` that one of `SCHEDULES` gives."""

    peak: float = 0.1
    schedule: str = "step"

    def __call__(self, progress: float) -> float:
        """The learning rate after a part `progress` of all steps."""
        return self.peak * SCHEDULES[self.schedule](progress)


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
    index = int(progress / SMALL_PART * len(smaller))
    return smaller[index] if index < len(smaller) else full
