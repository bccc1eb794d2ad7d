"""Thresholds by which given shares of the pictures leave: the budgeted batches of MSDNet.

Huang et al., "Multi-Scale Dense Networks for Resource Efficient Image Classification", arXiv 1703.09844, section 4: the
shares of the exits follow a geometric law with one parameter. They are as 1 : r : r² …, where r is what the paper calls
1 - q; above 1 it sends most pictures to the deep exits. Of the pictures that come to an exit, the surest leave.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inference.early_exit import NEVER, leaving

RATIOS = (1e-9, 1e9)  # with which all pictures leave at the first exit, and at the last
HALVINGS = 40  # of the interval of log ratios


def thresholds(probabilities: Tensor, ratio: float) -> tuple[float, ...]:
    """The threshold of each exit with which the pictures leave in these shares; `probabilities` is K×N. Pictures that
    are as sure as the last one that leaves do so, too."""
    exits, pictures = probabilities.shape
    shares = (torch.arange(exits, dtype=torch.float64) * math.log(ratio)).softmax(0)
    gone_by = (shares.cumsum(0) * pictures).round().int().tolist()
    there, found = torch.arange(pictures), []
    for sure, gone in zip(probabilities[:-1], gone_by[:-1], strict=True):
        threshold = _between(sure[there].sort(descending=True).values, gone - (pictures - len(there)))
        there = there[sure[there] < threshold]
        found.append(threshold)
    return (*found, 0.0)


def fit_budget(limit: float, probabilities: Tensor, costs: Sequence[float]) -> tuple[float, ...]:
    """The thresholds of the largest ratio with which the pictures take no more than `limit` on average; `costs` are
    what a picture takes to each exit, rising, the first within the limit."""
    taken = torch.tensor(costs, dtype=torch.float64)
    low, high = map(math.log, RATIOS)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        exits = leaving(probabilities, thresholds(probabilities, math.exp(middle)))
        low, high = (middle, high) if taken[exits].mean() <= limit else (low, middle)
    return thresholds(probabilities, math.exp(low))


def _between(surest: Tensor, count: int) -> float:
    """A threshold that the first `count` of these falling probabilities reach, and the others do not."""
    if count <= 0:
        return NEVER
    if count >= len(surest):
        return 0.0
    last, following = surest[count - 1], surest[count]
    middle = (last + following) / 2  # far from both, so that rounding decides nothing
    return (middle if middle > following else last).item()
