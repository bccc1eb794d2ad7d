"""What changes in the course of a training, as pure functions of `progress`, the part of all its steps that is done
(0 … 1): the same whether a run was interrupted or not."""

import math
from collections.abc import Sequence

WARM_UP = 0.2  # the part of a one-cycle run in which the learning rate rises
SMALL_PART = 0.5  # the part of a run in which pictures may be smaller than they are
SIDE_STEP = 8  # pixels by which they grow


def progress(epoch: int, step: int, steps: int, epochs: int) -> float:
    """The part of `epochs` epochs of `steps` steps that is done before a step of an epoch, both counted from 0."""
    return min((epoch + step / steps) / epochs, 1.0)


def learning_rate(progress: float, schedule: str, peak: float) -> float:
    """The learning rate after a part `progress` of all steps.

    `step`: divided by 10 after 40 % and again after 60 %, as the authors did; `cosine`: half a cosine down to 0;
    `onecycle`: a straight line from 1 % to 100 % of `peak` over the first 20 %, then half a cosine down to 0.
    """
    if schedule == "step":
        return peak * (1.0 if progress < 0.4 else 0.1 if progress < 0.6 else 0.01)
    if schedule == "onecycle" and progress < WARM_UP:
        return peak * (0.01 + 0.99 * progress / WARM_UP)
    start = WARM_UP if schedule == "onecycle" else 0.0
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - start) / (1 - start)))


def exit_weights(progress: float, schedule: str, weights: Sequence[float]) -> tuple[float, ...]:
    """The weights of the exits' losses, shallow to deep, after a part `progress` of all steps.

    `constant`: as they are; `deepen`: the shallowest falls in a straight line from 1.5 to 0.5 times its weight, the
    deepest rises from 0.5 to 1.5 times, those between them in proportion to their order.
    """
    if schedule == "constant" or len(weights) == 1:
        return tuple(weights)
    depths = (index / (len(weights) - 1) for index in range(len(weights)))
    return tuple(w * (1 + (progress - 0.5) * (2 * depth - 1)) for w, depth in zip(weights, depths, strict=True))


def side(progress: float, first: int, full: int) -> int:
    """The side of the pictures in pixels after a part `progress` of all steps: from `first` to `full` in steps of 8
    over the first half of the training, `full` from there on."""
    smaller = range(first, full, SIDE_STEP)
    stage = int(progress / SMALL_PART * len(smaller))
    return smaller[stage] if stage < len(smaller) else full
