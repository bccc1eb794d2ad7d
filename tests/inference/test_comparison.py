"""How the answers of an exported network are compared with its own."""

import pytest
import torch

import export
from examples import early_answers, logits_of
from inference import comparison
from inference.early_exit import Rule
from runs import EXITS

pytestmark = pytest.mark.slow


def test_an_exit_taken_by_rounding_is_no_difference_but_any_other_is(early_model, early_policy, tested):
    rule = early_policy[0]
    index = early_answers(early_model, rule, tested.images)[1].tolist().index(9)
    image, target = tested.images[index, None], tested.targets[index, None]
    divided = zip(logits_of(early_model, image), rule.temperatures, strict=True)
    alone = {position: (z / t).softmax(1) for position, (z, t) in zip(EXITS, divided, strict=True)}

    def left(position, rule):
        """The comparison for a file by which this picture, rightly or not, leaves at an exit."""
        answer = (alone[position], torch.tensor([position]))
        return comparison.compare(early_model, rule, lambda images: answer, [(image, target)])

    right, early, late = (left(position, rule) for position in (9, 5, 14))
    assert (right.moved, right.histogram, right.before) == (0, (0, 1, 0), right.after)
    assert right.difference < 1e-5
    assert (early.moved, early.histogram) == (1, (1, 0, 0))
    assert early.difference == pytest.approx(rule.thresholds[0] - alone[5].max().item(), abs=1e-5)
    assert (late.moved, late.histogram) == (1, (0, 0, 1))
    assert late.difference == pytest.approx(alone[9].max().item() - rule.thresholds[1], abs=1e-5)
    near = Rule(EXITS, rule.temperatures, (rule.thresholds[0], alone[9].max().item() - 1e-5, 0.0))
    late = left(14, near)
    assert late.moved == 1
    assert late.difference < export.ROUNDING[False]
