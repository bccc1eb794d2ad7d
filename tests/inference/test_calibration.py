"""Policies from held-out pictures keep what they promise."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from examples import MACS, network, synthetic
from inference import calibration, early_exit, sweeping
from inference.calibration import Answered, Family, Goal
from inference.early_exit import NEVER, Rule
from runs import EXITS
from system.errors import UserError


def test_temperatures_are_those_of_the_least_loss():
    held = synthetic(2000)
    for temperature, logits in zip(calibration.fit_temperatures(held), held.logits, strict=True):
        losses = [torch.nn.functional.cross_entropy(logits / (temperature * f), held.targets) for f in (0.98, 1, 1.02)]
        assert losses[1] == min(losses)


def test_an_exit_that_is_right_of_all_of_few_pictures_is_not_taken_for_infallible():
    targets = torch.arange(60) % 10
    logits = 4 * torch.nn.functional.one_hot(targets, 10).float() + torch.linspace(0, 1, 600).view(60, 10)
    (temperature,) = calibration.fit_temperatures(Answered([logits], targets, "right"))
    top = early_exit.probable(logits, temperature).amax(1)
    assert 0.9 < top.min() < top.max() < 0.9999


def test_a_family_is_what_simulation_says_of_each_threshold():
    held = synthetic(300)
    held.logits[0][:50] = held.logits[0][0]  # ties
    family = Family(held.probabilities((1.0,) * 3))
    macs, wrong = family.totals(torch.tensor(MACS)[:, None].expand(-1, 300)), family.totals(held.wrong)
    assert family.thresholds[0] == 0
    assert family.thresholds[-1] == NEVER
    for index in range(0, len(family.thresholds), 7):
        threshold = family.thresholds[index].item()
        figures = early_exit.simulate(held.logits, Rule(EXITS, (1.0,) * 3, (threshold, threshold, 0.0))).figures(
            held.targets, MACS
        )
        assert figures["macs"] * 300 == pytest.approx(macs[index].item())
        assert figures["error"] * 3 == pytest.approx(wrong[index].item())
        assert index == 0 or family.index(family.thresholds[index : index + 1]) == index
    assert (macs.diff() >= 0).all()


def test_budgets_are_kept_and_used():
    held = synthetic(1000)
    for budget in (10, 11, 20, 33.3, 40, 100):
        policy = calibration.make_policy(Goal("budgetMACs", budget), held, network(), MACS, MACS)
        assert policy.macs <= budget
        assert policy.macs > min(budget, 40) - 0.1
    assert policy.histogram == (0, 0, 1000)


def test_a_budget_of_time_counts_measured_milliseconds_even_where_a_deeper_exit_seemed_faster():
    held = synthetic(1000)
    policy = calibration.make_policy(Goal("budgetMs", 2.0), held, network(), MACS, [1.0, 2.5, 2.4])
    first, *rest = policy.histogram
    assert 1.99 < (first + 2.5 * sum(rest)) / 1000 <= 2


def test_impossible_budgets_name_the_nearest():
    held = synthetic(1000)
    with pytest.raises(UserError, match=r"--budgetMACs 20M is less than .* give 33\.48M or more"):
        calibration.fit(Goal("budgetMACs", 20e6), held, [33_472_672, 50_000_000, 60_000_000])
    assert calibration.fit(Goal("budgetMACs", 33.48e6), held, [33_472_672, 50_000_000, 60_000_000])
    with pytest.raises(UserError, match=r"give 16012\.35M or more"):
        calibration.fit(Goal("budgetMACs", 20e6), held, [16_012_340_001, 17_000_000_000, 18_000_000_000])
    with pytest.raises(UserError, match=r"give 1\.03 or more"):
        calibration.fit(Goal("budgetMs", 1), held, [1.021, 2, 3])
    with pytest.raises(UserError) as refused:
        calibration.fit(Goal("maxErrorIncrease", 0.01, 0.95), held, MACS)
    nearest = float(str(refused.value).split(" pictures; ")[1].split()[0])
    assert calibration.fit(Goal("maxErrorIncrease", nearest, 0.95), held, MACS)


@pytest.mark.parametrize(("points", "least"), [(2.0, 199), (1.0, 401), (0.5, 803)])
def test_a_guarantee_takes_as_many_pictures_as_is_told(points, least):
    """In docs/early-exit.md, of pictures that no exit has wrong."""
    for pictures in (least, least - 1):
        targets = torch.arange(pictures) % 10
        held = Answered([5.0 * torch.nn.functional.one_hot(targets, 10)] * len(EXITS), targets, "easy")
        with nullcontext() if pictures == least else pytest.raises(UserError, match="or hold out more pictures"):
            calibration.fit(Goal("maxErrorIncrease", points, 0.95), held, MACS)


def test_a_guarantee_for_a_single_class_lets_every_picture_go():
    held = Answered([torch.zeros(1000, 1)] * len(EXITS), torch.zeros(1000, dtype=torch.int64), "one class")
    _, thresholds = calibration.fit(Goal("maxErrorIncrease", 1.0, 0.95), held, MACS)
    assert early_exit.simulate(held.logits, Rule(EXITS, (1.0,) * len(EXITS), thresholds)).exits.eq(0).all()


def test_the_guarantee_fails_no_more_often_than_stated():
    """Over 200 draws of held-out pictures; the true increase is that over many more pictures of the same kind."""
    truth = synthetic(200_000, seed=1)
    last_wrong = truth.wrong[-1].double().mean()
    failures, increases = 0, []
    for draw in range(200):
        held = synthetic(1000, seed=2 + draw)
        temperatures, threshold = calibration.fit_guarantee(0.02, 0.8, held)
        rule = Rule(EXITS, temperatures, (threshold, threshold, 0.0))
        part = truth.take(torch.arange(draw * 1000, draw * 1000 + 50_000) % 200_000)
        classes = early_exit.simulate(part.logits, rule).classes
        increases.append(((classes != part.targets).double().mean() - part.wrong[-1].double().mean()).item())
        failures += increases[-1] > 0.02
    assert failures <= 0.2 * 200
    assert np.mean(increases) > 0.002  # it does let pictures go
    assert 0.02 < last_wrong < 0.5


def test_the_bound_of_an_increase_is_exact_for_single_counts_and_holds_for_differences():
    none = calibration.increase_bound(np.array([0]), np.array([0]), 100, 0.05)
    assert none[0] == pytest.approx(1 - (0.8 * 0.05) ** (1 / 100))
    assert calibration.increase_bound(np.array([100]), np.array([0]), 100, 0.05)[0] == 1
    rng = np.random.default_rng(0)
    for harm, help in ((0.01, 0.0), (0.03, 0.02), (0.3, 0.25)):
        harmed, _, helped = rng.multinomial(500, [harm, 1 - harm - help, help], 20_000).T
        missed = calibration.increase_bound(harmed, helped, 500, 0.1) < harm - help
        assert missed.mean() <= 0.1


def test_a_sweep_is_monotone_where_it_must_be():
    held = synthetic(1000)
    policy = calibration.make_policy(Goal("budgetMACs", 20), held, network(), MACS, MACS)
    rows = sweeping.sweep(held, policy, MACS)
    assert [row["exit"] for row in rows[:4]] == [*EXITS, None]
    points = rows[3:]
    assert len(points) > 50
    columns = {
        name: np.array([row[name] for row in points]) for name in ("threshold", "macs", "error", "mixture", "oracle")
    }
    assert all((np.diff(columns[name]) > 0).all() for name in ("threshold", "macs"))
    assert (np.diff(columns["oracle"]) <= 1e-9).all()
    assert (columns["oracle"] <= columns["error"] + 1e-9).all()
    assert points[0]["error"] == pytest.approx(rows[0]["error"])
    assert points[-1]["error"] == pytest.approx(rows[2]["error"])
    assert points[-1]["mixture"] == pytest.approx(rows[2]["error"])


def test_a_sweep_of_shares_stands_beside_that_of_thresholds():
    held = synthetic(1000)
    policy = calibration.make_policy(Goal("budgetMACs", 20, protocol="msdnet"), held, network(), MACS, MACS)
    assert policy.protocol == "msdnet"
    assert 19.9 < policy.macs <= 20
    rows = sweeping.sweep(held, policy, MACS)
    shares = [row for row in rows if row["ratio"] is not None]
    assert len(shares) == sweeping.POINTS
    assert shares[0]["macs"] < 11
    assert shares[-1]["macs"] > 39
    assert all((np.diff([row[name] for row in shares]) >= 0).all() for name in ("ratio", "macs"))
    assert all(row["oracle"] <= row["error"] + 1e-9 for row in shares)
    others = sweeping.sweep(held, calibration.make_policy(Goal("budgetMACs", 20), held, network(), MACS, MACS), MACS)
    assert [row for row in rows if row["ratio"] is None] == others
