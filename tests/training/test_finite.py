"""Numbers that are not finite stop a training, by name, before they are kept."""

import math
from dataclasses import replace

import pytest
import torch

import main
from examples import network
from formats import exit_file
from runs import FOLDER, SMALL, last_state
from training.evaluator import Evaluator
from training.finite import FiniteWatch, NotFinite
from training.plan import Plan
from training.trainer import Trainer

pytestmark = pytest.mark.slow

KERNEL = "segments.1.0.convolutions.0.weight"


@pytest.mark.parametrize(
    ("gradients", "words"),
    [
        ((), "the loss of exit 5"),
        (("stem.weight", KERNEL), f"the gradient of {KERNEL} of exit 9"),
        (("stem.weight", KERNEL, "heads.9.linear.bias"), "the gradient of heads.9.linear.bias of exit 9"),
    ],
)
def test_numbers_that_are_not_finite_stop_the_training(gradients, words, tmp_path, monkeypatch):
    real, calls = Trainer.step, []

    def spoilt(self, *arguments):
        calls.append(1)
        loss, losses, logits = real(self, *arguments)
        if len(calls) >= 7:  # four steps an epoch
            for name in gradients:
                self.network.get_parameter(name).grad[0] = float("inf")
            if not gradients:
                losses[0] = float("nan")
        return loss, losses, logits

    monkeypatch.setattr(Trainer, "step", spoilt)
    with pytest.raises(NotFinite, match=f"{words} is not finite in epoch 2, batch 3"):
        main.main([*SMALL, "--nEpochs", "3", "--save", str(tmp_path)])
    state = last_state(tmp_path / FOLDER)
    assert len(state["log"]) == 1
    assert all(tensor.isfinite().all() for tensor in state["network"].values())


def test_a_gradient_that_was_not_finite_is_named_though_it_is_gone():
    """The next step is broken off when it has cleared the gradients, or has some anew."""
    few = network("AuxResNet-8-2")
    watch = FiniteWatch(few, {name: b for name, b in few.named_buffers() if b.is_floating_point()}, gradients=True)
    for parameter in few.parameters():
        parameter.grad = torch.ones_like(parameter)
    few.stem.weight.grad[0] = float("inf")
    step = next(Plan(pictures=8, batch_size=8, epochs=1, seed=0, side=32, first_side=32).after(0))
    watch.add(step, torch.ones(2))
    for parameter in few.parameters():
        parameter.grad = None
    few.heads["8"].linear.bias.grad = torch.ones(10)
    with pytest.raises(NotFinite, match=r"the gradient of stem\.weight of exit 5 is not finite in epoch 1, batch 1"):
        watch.check()


def test_a_state_is_not_saved_after_such_a_step(tmp_path, monkeypatch):
    real = FiniteWatch.add
    monkeypatch.setattr(FiniteWatch, "add", lambda self, step, losses: real(self, step, losses * float("nan")))
    with pytest.raises(NotFinite, match="epoch 1, batch 1"):
        main.main([*SMALL, "--nEpochs", "3", "--save", str(tmp_path), "--saveEvery", "0"])
    state = last_state(tmp_path / FOLDER)
    assert state["step"] == 0


def test_statistics_that_are_not_finite_stop_the_training(tmp_path, monkeypatch):
    """Batches are normalised by statistics of their own: neither losses nor gradients show it."""
    real = Trainer.step

    def spoilt(self, *arguments):
        result = real(self, *arguments)
        self.network.get_buffer("heads.5.norm.running_var")[0] = float("inf")
        return result

    monkeypatch.setattr(Trainer, "step", spoilt)
    with pytest.raises(NotFinite, match=r"heads\.5\.norm\.running_var is not finite in epoch 1; try a lower --LR"):
        main.main([*SMALL, "--save", str(tmp_path)])
    state = last_state(tmp_path / FOLDER)
    assert all(tensor.isfinite().all() for tensor in state["network"].values())
    assert not exit_file.files_in(tmp_path / FOLDER)


def test_a_test_loss_that_is_not_finite_stops_the_training(tmp_path, monkeypatch):
    real = Evaluator.evaluate
    monkeypatch.setattr(Evaluator, "evaluate", lambda *arguments: replace(real(*arguments), loss=math.nan))
    with pytest.raises(NotFinite, match="the test loss is not finite after epoch 1; try a lower --LR"):
        main.main([*SMALL, "--save", str(tmp_path)])
    assert last_state(tmp_path / FOLDER)["log"] == []
