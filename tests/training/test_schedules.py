"""What changes in the course of a training."""

import pytest

from training.schedules import ExitWeights, LearningRate, side


def test_learning_rate_of_the_paper():
    rates = [LearningRate(0.1, "step")(epoch / 400) for epoch in range(400)]
    assert rates[:160] == [0.1] * 160
    assert rates[160:240] == [pytest.approx(0.01)] * 80
    assert rates[240:] == [pytest.approx(0.001)] * 160


def test_learning_rates_without_steps():
    cosine, onecycle = LearningRate(0.1, "cosine"), LearningRate(0.1, "onecycle")
    assert [cosine(progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx([0.1, 0.05, 0.0])
    rates = [onecycle(step / 1000) for step in range(1001)]
    peak = rates.index(max(rates))
    assert (rates[0], rates[peak], rates[-1]) == (pytest.approx(0.001), pytest.approx(0.1), pytest.approx(0.0))
    assert peak == 200
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_exit_weights_deepen():
    assert ExitWeights((1.0, 2.0))(0.3) == (1.0, 2.0)
    weights = ExitWeights((1.0, 1.0, 2.0), "deepen")
    assert weights(0.0) == pytest.approx((1.5, 1.0, 1.0))
    assert weights(0.5) == pytest.approx((1.0, 1.0, 2.0))
    assert weights(1.0) == pytest.approx((0.5, 1.0, 3.0))
    assert ExitWeights((1.0,), "deepen")(0.0) == (1.0,)


def test_sides_grow_by_steps_to_the_full_one():
    assert [side(p, 16, 32) for p in (0.0, 0.24, 0.26, 0.49, 0.5, 1.0)] == [16, 16, 24, 24, 32, 32]
    assert [side(p, 32, 32) for p in (0.0, 1.0)] == [32, 32]
    assert [side(p, 20, 32) for p in (0.0, 0.3, 0.6)] == [20, 28, 32]
