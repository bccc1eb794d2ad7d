"""What early exit costs and gives under all thresholds, not under those of one policy only: the rows of a plot."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from inference import geometric
from inference.calibration import Answered, Family
from inference.early_exit import leaving
from inference.policies import Policy
from options.values import MSDNET

POINTS = 101  # of a sweep
RATIOS = (0.01, 100)  # from nearly all pictures at the first exit to nearly all at the last
COLUMNS = ("exit", "threshold", "ratio", "macs", "error", "mixture", "oracle")


def sweep(held: Answered, policy: Policy, macs: Sequence[int]) -> list[dict[str, float | None]]:
    """A row for each exit alone, then one for each of up to `POINTS` thresholds in place of the policy's, from the
    cheapest to the dearest; for a policy of MSDNet's protocol then one for each of as many ratios of its shares. Errors
    are in percent, `macs` for one picture on average.

    `mixture` is the error for the same multiply-adds of sending pictures to the two neighbouring exits at random, and
    `oracle` that of a policy which knows what is true (see `oracle`).
    """
    wrong, pictures = held.wrong, len(held.targets)
    alone = 100 * wrong.double().mean(1).numpy()
    probabilities = held.probabilities(policy.temperatures)
    family = Family(probabilities)
    average = family.totals(torch.tensor(macs)[:, None].expand(-1, pictures)).numpy() / pictures
    chosen = np.unique(np.searchsorted(average, np.linspace(macs[0], macs[-1], POINTS), side="right") - 1)
    errors = 100 * family.totals(wrong).numpy() / pictures
    single = zip(policy.positions, macs, alone, strict=True)
    rows = [{"exit": exit, "macs": cost, "error": error} for exit, cost, error in single]
    rows += [{"threshold": family.thresholds[i].item(), "macs": average[i], "error": errors[i]} for i in chosen]
    if policy.protocol == MSDNET:
        rows += list(_geometric(probabilities, wrong, macs))
    best = oracle(wrong, macs)
    for row in rows[len(macs) :]:
        row["mixture"] = np.interp(row["macs"], macs, alone)
        row["oracle"] = np.interp(row["macs"], *best)
    return [{name: row.get(name) for name in COLUMNS} for row in rows]


def _geometric(probabilities: Tensor, wrong: Tensor, macs: Sequence[int]) -> Iterator[dict[str, float]]:
    """The rows of a sweep over the ratios of MSDNet's protocol; K×N of the top probabilities, and of what is wrong."""
    cost = torch.tensor(macs, dtype=torch.float64)
    for ratio in np.geomspace(*RATIOS, POINTS).tolist():
        exits = leaving(probabilities, geometric.thresholds(probabilities, ratio))
        error = 100 * wrong.gather(0, exits[None]).double().mean()
        yield {"ratio": ratio, "macs": cost[exits].mean().item(), "error": error.item()}


def oracle(wrong: Tensor, macs: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Multiply-adds for one picture on average, and errors in percent, K of each: pictures that the first exit has
    wrong (`wrong` is K×N) go on to the first exit that has them right, if that is one of the first 1, 2, … K."""
    rescued = torch.bincount((~wrong).int().argmax(0), minlength=len(macs)).double().numpy() / wrong.shape[1]
    rescued[0] = 0  # right at the first exit, or wrong at all of them
    extra = rescued * (np.array(macs) - macs[0])
    return macs[0] + extra.cumsum(), 100 * (wrong[0].double().mean().item() - rescued.cumsum())
