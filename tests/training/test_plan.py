"""What each step sees: every picture once an epoch, shared out among processes, at a progress that grows to 1."""

import numpy as np
import pytest

from system import world
from training.plan import Plan

PLAN = Plan(pictures=100, batch_size=32, epochs=4, seed=0, side=32, first_side=16)


def test_steps_and_their_progress():
    steps = list(PLAN.after(0))
    assert PLAN.steps == 4
    assert [(step.epoch, step.index) for step in steps] == [(epoch, index) for epoch in range(4) for index in range(4)]
    assert [step.progress for step in steps] == pytest.approx([n / 16 for n in range(16)])
    assert [step.side for step in steps] == [16] * 4 + [24] * 4 + [32] * 8
    assert [PLAN.side_at(epoch) for epoch in range(4)] == [16, 24, 32, 32]
    assert [len(step.indices) for step in steps[:4]] == [32, 32, 18, 18]


@pytest.mark.parametrize(
    ("pictures", "sizes"),
    [(96, [32, 32, 32]), (97, [32, 32, 17, 16]), (104, [32, 32, 32, 8]), (33, [17, 16]), (32, [32]), (3, [3])],
)
def test_a_last_step_of_few_pictures_shares_with_the_one_before(pictures, sizes):
    plan = Plan(pictures, batch_size=32, epochs=1, seed=0, side=32, first_side=32)
    steps = list(plan.after(0))
    assert [step.whole for step in steps] == sizes
    assert [plan.pictures_after(count) for count in range(len(sizes) + 1)] == [0, *np.cumsum(sizes)]
    assert sorted(np.concatenate([step.indices for step in steps])) == list(range(pictures))


def test_a_plan_goes_on_where_it_was_left():
    whole, rest = list(PLAN.after(0)), list(PLAN.after(1, 2))
    assert len(rest) == 10
    for expected, found in zip(whole[6:], rest, strict=True):
        assert (expected.epoch, expected.index, expected.side) == (found.epoch, found.index, found.side)
        assert (expected.indices == found.indices).all()


def test_a_plan_goes_on_with_the_next_epoch_where_one_is_trained_and_not_yet_tested():
    trained, next_one = next(PLAN.after(0, 4)), next(PLAN.after(1))
    assert (trained.epoch, trained.index, trained.whole) == (1, 0, 32)
    assert list(trained.indices) == list(next_one.indices)


def test_processes_share_every_batch_and_lose_no_picture(monkeypatch):
    whole, shares = list(PLAN.after(0)), []
    monkeypatch.setattr(world, "size", lambda: 3)  # as if three had been started
    for rank in range(3):
        monkeypatch.setattr(world, "rank", lambda rank=rank: rank)
        shares.append(list(PLAN.after(0)))
    for step, *parts in zip(whole, *shares, strict=True):
        together = np.concatenate([part.indices for part in parts])
        assert sorted(together) == sorted(step.indices)
        assert max(len(part.indices) for part in parts) - min(len(part.indices) for part in parts) <= 1
