"""Policies from held-out pictures: temperatures, then the thresholds that a budget or a guarantee calls for.

The temperatures make the exits' probabilities comparable, so one threshold serves all of them, and a family with one
parameter remains: from NEVER (every picture goes to the last exit) to 0 (every picture leaves at the first). Thresholds
of each exit's own, by backward induction on the held-out pictures, were no better on AuxResNet-56-5. Those of MSDNet's
protocol are in `geometric.py`.

K is the number of exits, N that of pictures, C that of classes.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from inference import geometric
from inference.early_exit import NEVER, Rule, probable, simulate
from inference.policies import Policy, fingerprint
from models.multiexit import MultiExit
from options.values import MSDNET, THRESHOLD
from system.errors import UserError

TEMPERATURES = (1 / 64, 64.0)
HALVINGS = 24  # of the interval of log temperatures: to a millionth
TUNED_ON = 0.2  # the part of the pictures that a guarantee's temperatures are fitted on; it is tested on the others
HARM_SHARE = 0.8  # the part of the allowed risk that the bound of the harmed pictures has; see `increase_bound`
STEPS = 200  # thresholds that a guarantee tries
SAFEST = 1e-5  # 1 minus the first of them


class Goal(NamedTuple):
    """What a policy is for: an option of calibrate.py, its value, how sure a guarantee has to be (0 … 1); and which
    thresholds may serve it."""

    criterion: str
    limit: float
    confidence: float | None = None
    protocol: str = THRESHOLD


@dataclass(frozen=True)
class Answered:
    """What the exits say of N pictures, and what is true."""

    logits: Sequence[Tensor]  # K of N×C
    targets: Tensor  # N
    dataset: str  # where they are from, in words

    def take(self, indices: Tensor) -> "Answered":
        """Some of the pictures."""
        return Answered([z[indices] for z in self.logits], self.targets[indices], self.dataset)

    @property
    def wrong(self) -> Tensor:
        """K×N, whether an exit is wrong of a picture."""
        return torch.stack([z.argmax(1) != self.targets for z in self.logits])

    def probabilities(self, temperatures: Sequence[float]) -> Tensor:
        """K×N, the top probability."""
        return torch.stack([probable(z, t).amax(1) for z, t in zip(self.logits, temperatures, strict=True)])


class Family:
    """All policies with one threshold for every exit but the last that treat N pictures differently, from threshold 0,
    at which all leave at the first exit, to NEVER. `probabilities`, K×N, are the top ones of each exit."""

    def __init__(self, probabilities: Tensor) -> None:
        self.pictures = probabilities.shape[1]
        surest = probabilities[:-1].cummax(0).values.flatten()  # goes beyond an exit if this is below the threshold
        ordered, self._order = surest.sort()
        self.values, counts = ordered.unique_consecutive(return_counts=True)
        self._ends = counts.cumsum(0) - 1
        middles = (self.values[:-1] + self.values[1:]) / 2  # far from both sides, so that rounding decides nothing
        middles = torch.where(middles > self.values[:-1], middles, self.values[1:])
        self.thresholds = torch.cat([middles.new_zeros(1), middles, middles.new_full((1,), NEVER)])

    def totals(self, values: Tensor) -> Tensor:
        """`values`, K×N, are something that each exit costs or gives for each picture. For each policy the sum over the
        pictures, each at the exit where it leaves.

        A picture has the value of the first exit, and a step more for each exit that it goes beyond. In the order of
        the thresholds from which that happens, one cumulative sum of the steps gives the totals of all policies.
        """
        steps = values[1:].double() - values[:-1].double()
        changes = steps.flatten()[self._order].cumsum(0)[self._ends]
        return values[0].double().sum() + torch.cat([changes.new_zeros(1), changes])

    def index(self, thresholds: Tensor) -> Tensor:
        """Which policies thresholds between 0 (not included) and NEVER stand for."""
        return torch.searchsorted(self.values, thresholds)


def fit_temperatures(held: Answered) -> tuple[float, ...]:
    """The temperature of each exit at which the held-out pictures are likeliest (Guo et al., "On Calibration of Modern
    Neural Networks", arXiv 1706.04599, section 4.2).

    One picture more, as likely of one class as of any other, is added to what was seen, spread over all N, as Platt
    does for his sigmoid ("Probabilistic Outputs for Support Vector Machines", 1999, section 2.2): an exit that is right
    of few pictures, and of all of them, would be likeliest at T = 0, and every picture as sure as can be.

    The negative log-likelihood is convex in 1 / T. Its slope, the mean of E[z] - z of the right class, is brought to 0
    by bisection over log T for all exits at once.
    """
    logits = torch.stack(list(held.logits))  # K×N×C
    right = logits.gather(2, held.targets.expand(len(logits), -1)[:, :, None])[:, :, 0].mean(1)
    right = (len(held.targets) * right + logits.mean((1, 2))) / (len(held.targets) + 1)
    low, high = (torch.full_like(right, bound).log() for bound in TEMPERATURES)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        expected = ((logits / middle.exp()[:, None, None]).softmax(2) * logits).sum(2).mean(1)
        colder = expected < right
        low, high = torch.where(colder, low, middle), torch.where(colder, middle, high)
    return tuple(((low + high) / 2).exp().tolist())


def check_reach(goal: Goal, costs: Sequence[float]) -> None:
    """Raise UserError where a budget is less than the first exit takes; `costs` are as for `fit`."""
    if goal.confidence is None and costs[0] > goal.limit:
        raise UserError(
            f"--{goal.criterion} {_as_option(goal, goal.limit)} is less than the first exit takes; give "
            f"{_as_option(goal, costs[0], math.ceil)} or more"
        )


def fit(goal: Goal, held: Answered, costs: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The temperature and the threshold of each exit for a goal; `costs` are what a picture takes to each, in the
    goal's unit.

    Raises UserError naming the nearest goal that can be reached, where this one cannot.
    """
    if goal.confidence is not None:
        temperatures, threshold = fit_guarantee(goal.limit / 100, goal.confidence, held)
    else:
        check_reach(goal, costs)
        temperatures = fit_temperatures(held)
        probabilities = held.probabilities(temperatures)
        rising = list(itertools.accumulate(costs, max))  # measured ones may not
        if goal.protocol == MSDNET:
            return temperatures, geometric.fit_budget(goal.limit, probabilities, rising)
        threshold = fit_budget(goal.limit, Family(probabilities), rising)
    return temperatures, (*[threshold] * (len(temperatures) - 1), 0.0)


def fit_budget(limit: float, family: Family, costs: Sequence[float]) -> float:
    """The highest threshold with which the pictures take no more than `limit` on average; `costs` are what a picture
    takes to each exit, rising, the first within the limit."""
    taken = torch.tensor(costs, dtype=torch.float64)[:, None].expand(-1, family.pictures)
    within = family.totals(taken) <= limit * family.pictures
    return family.thresholds[max(within.sum() - 1, 0)].item()


def fit_guarantee(increase: float, confidence: float, held: Answered) -> tuple[tuple[float, ...], float]:
    """Temperatures and the lowest threshold of which it is certain with this confidence (0 … 1) that the error rises by
    `increase` (0 … 1) at most over the last exit's.

    Learn then test (Angelopoulos et al., arXiv 2110.01052), as for early exits in Jazbec et al., "Fast yet Safe", arXiv
    2405.20915: of thresholds that were fixed before, from safe to fast, each is tested at level 1 - confidence, and the
    last before the first that fails is taken. Fixed-sequence testing needs no correction for their number, and no
    assumption that the risk grows along it. The confidence is over the draw of the pictures that are tested on, which
    must be drawn as those to come are; the temperatures are therefore fitted on others.
    """
    order = torch.randperm(len(held.targets), generator=torch.Generator().manual_seed(0))
    tuning, testing = (held.take(part) for part in order.tensor_split([int(TUNED_ON * len(order))]))
    temperatures = fit_temperatures(tuning)
    family, wrong = Family(testing.probabilities(temperatures)), testing.wrong
    tried = sequence(held.logits[0].shape[1])
    tested = family.index(tried)
    harmed, helped = (family.totals(v)[tested].numpy() for v in (wrong & ~wrong[-1], ~wrong & wrong[-1]))
    bounds = increase_bound(harmed, helped, len(testing.targets), 1 - confidence)
    passed = int((bounds <= increase).cumprod().sum())
    if not passed:
        least = np.ceil(1e4 * bounds[0]) / 100
        raise UserError(
            f"--maxErrorIncrease {100 * increase:g} cannot be assured with confidence {confidence:g} by "
            f"{len(testing.targets):,} pictures; {least:g} can; or hold out more pictures"
        )
    return temperatures, tried[passed - 1].item()


def sequence(classes: int) -> Tensor:
    """The thresholds that a guarantee tries, from safe to fast, down to where every picture leaves at the first exit;
    fixed before any picture is seen."""
    return torch.from_numpy(1 - np.geomspace(SAFEST, max(1 - 1 / classes, SAFEST), STEPS)).float()


def increase_bound(harmed: np.ndarray, helped: np.ndarray, pictures: int, risk: float) -> np.ndarray:
    """What the increase of the error (0 … 1) exceeds with probability `risk` at most, for any distribution.

    Of the `pictures`, early exit makes `harmed` wrong that the last exit has right, and `helped` the other way round.
    The increase is the difference of the two probabilities, so it is below the upper bound of the one minus the lower
    bound of the other. The bounds are Clopper and Pearson's, exact for counts; by the union bound their risks add up.
    On counts that are as rare as these, this is tighter than the bounds for means of any bounded numbers (Hoeffding,
    betting); the larger share of the risk is that of the harmed, because they decide where few are helped.
    """
    harm_risk, help_risk = HARM_SHARE * risk, (1 - HARM_SHARE) * risk
    upper = np.where(harmed < pictures, betaincinv(harmed + 1, np.maximum(pictures - harmed, 1), 1 - harm_risk), 1.0)
    lower = np.where(helped > 0, betaincinv(np.maximum(helped, 1), pictures - helped + 1, help_risk), 0.0)
    return upper - lower


def make_policy(goal: Goal, held: Answered, network: MultiExit, macs: Sequence[int], costs: Sequence[float]) -> Policy:
    """The policy of a network for a goal, and what it does to all held-out pictures. `macs` are the multiply-adds to
    each exit, `costs` and UserError are as for `fit`."""
    rule = Rule(network.exits, *fit(goal, held, costs))
    outcome = simulate(held.logits, rule)
    return Policy(
        **asdict(rule),
        model=fingerprint(network),
        dataset=held.dataset,
        pictures=len(held.targets),
        **outcome.figures(held.targets, macs),
        criterion=goal.criterion,
        limit=goal.limit,
        confidence=goal.confidence,
        protocol=goal.protocol,
    )


def _as_option(goal: Goal, value: float, rounded: Callable[[float], float] = float) -> str:
    """A value in a goal's unit as it is written on the command line, in hundredths `rounded` in this way."""
    scale, unit = (1e6, "M") if goal.criterion == "budgetMACs" else (1, "")
    return f"{rounded(100 * value / scale) / 100:.12g}{unit}"
