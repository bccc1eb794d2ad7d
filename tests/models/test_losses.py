"""The multi-way loss, and what exits learn from each other."""

import pytest
import torch
from torch.nn import functional as F

from models.losses import Objective, distillation, multiway_loss


def test_label_smoothing_is_a_mixture_of_targets():
    logits, targets = torch.randn(6, 10), torch.arange(6)
    loss, losses = multiway_loss([logits], targets, (2.0,), smoothing=0.2)
    soft = 0.8 * F.one_hot(targets, 10) + 0.02
    torch.testing.assert_close(loss, 2 * -(soft * logits.log_softmax(1)).sum(1).mean())
    torch.testing.assert_close(losses[0] * 2, loss)


@pytest.mark.parametrize(("teacher", "taught"), [("last", [True, True, False]), ("ensemble", [True, True, True])])
def test_distillation_teaches_the_right_exits(teacher, taught):
    logits = [torch.randn(5, 10, requires_grad=True) for _ in range(3)]
    loss = distillation(logits, (1.0, 0.5, 2.0), 3.0, teacher)
    loss.backward()
    assert [z.grad is not None and z.grad.abs().sum().item() > 0 for z in logits] == taught
    wise = logits[-1] if teacher == "last" else sum(logits) / 3
    p = (wise / 3).softmax(1)
    expected = sum(
        9 * w * (p * (p.log() - (z / 3).log_softmax(1))).sum(1).mean()
        for w, z in zip((1.0, 0.5, 2.0), logits, strict=True)
    )  # the teacher's own term is 0 when it is the last exit
    torch.testing.assert_close(loss, expected)


def test_an_exit_of_weight_0_neither_learns_nor_teaches_and_a_plain_network_teaches_nobody():
    logits = [torch.randn(5, 10, requires_grad=True) for _ in range(2)]
    assert distillation(logits, (1.0, 0.0), 1.0, "last") == 0
    assert distillation(logits, (1.0, 0.0), 1.0, "ensemble").item() == pytest.approx(0, abs=1e-6)
    assert distillation(logits, (0.0, 1.0), 1.0, "last") == 0
    assert distillation(logits[:1], (1.0,), 1.0, "last") == 0
    objective = Objective(distill=1.0)
    targets = torch.arange(5)
    assert objective(logits[:1], targets, (1.0,))[0].equal(multiway_loss(logits[:1], targets, (1.0,))[0])
