"""Thresholds of MSDNet's protocol: the shares that leave follow the law, ties leave together, budgets are kept."""

import pytest
import torch

from inference import geometric
from inference.early_exit import NEVER, leaving


def probabilities(exits=4, pictures=1000, seed=0):
    """K×N top probabilities without order between the exits."""
    return torch.rand(exits, pictures, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0, 3.0])
def test_the_shares_follow_the_law(ratio):
    found = probabilities()
    counts = torch.bincount(leaving(found, geometric.thresholds(found, ratio)), minlength=4).double()
    law = torch.tensor([ratio**k for k in range(4)], dtype=torch.float64)
    assert (counts - 1000 * law / law.sum()).abs().max() <= 1


def test_of_those_that_come_to_an_exit_the_surest_leave():
    found = probabilities()
    exits = leaving(found, geometric.thresholds(found, 1.0))
    for index in range(3):
        there = exits >= index
        assert found[index][exits == index].min() > found[index][there & (exits > index)].max()


def test_extreme_ratios_send_all_pictures_to_one_exit():
    found = probabilities()
    for ratio, exit in zip(geometric.RATIOS, (0, 3), strict=True):
        assert (leaving(found, geometric.thresholds(found, ratio)) == exit).all()
    assert geometric.thresholds(found, geometric.RATIOS[1]) == (NEVER, NEVER, NEVER, 0.0)


def test_pictures_that_are_equally_sure_leave_together():
    found = torch.full((3, 100), 0.5)
    assert leaving(found, geometric.thresholds(found, 1.0)).tolist() == [0] * 100
    found[0, :40] = 0.9  # 33 are to leave
    assert torch.bincount(leaving(found, geometric.thresholds(found, 1.0))).tolist() == [40, 60]


@pytest.mark.parametrize("budget", [10, 12.5, 21, 37, 40, 100])
def test_budgets_are_kept_and_used(budget):
    costs = [10.0, 20.0, 30.0, 40.0]
    found = probabilities()
    taken = torch.tensor(costs)[leaving(found, geometric.fit_budget(budget, found, costs))].mean().item()
    assert min(budget, 40) - 0.1 < taken <= budget
