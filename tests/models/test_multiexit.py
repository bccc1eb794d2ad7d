"""Segments and heads work over any trunk: a toy one of this file is trained, tested, folded, and stopped early."""

import pytest
import torch
from torch import nn

from datasets import digits
from datasets.loaders import training_batches
from datasets.transforms import Augmentation, Normalise
from examples import CPU, network
from inference.evaluation import evaluate, ready
from models.metrics import Sums
from models.multiexit import MultiExit, Trunk
from training.plan import Plan
from training.schedules import LearningRate
from training.trainer import Trainer


class Layer(nn.Module):
    """Not a residual block, and nothing that can be folded; counts its calls."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, 2, 1)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.convolution(x.relu())


def toy(kept=None):
    torch.manual_seed(0)
    trunk = Trunk(nn.Conv2d(3, 8, 3, 2, 1), [Layer(8, 8), Layer(8, 16), Layer(16, 24)], (8, 16, 24), (10, 20, 30))
    return MultiExit(trunk, (10, 30), 10, kept)


def test_a_toy_trunk_learns_at_all_its_exits():
    pictures = digits.load(None, "train")
    normalise = Normalise((60.0,) * 3, (70.0,) * 3)
    trainer = Trainer(toy(), normalise, CPU, learning_rate=LearningRate(0.2, "onecycle"))
    steps = Plan(len(pictures), 64, epochs=4, seed=0, side=32, first_side=32).after(0)
    batches = training_batches(pictures, steps, seed=0, workers=0, augmentation=Augmentation(), pin=False)
    sums = Sums(2, CPU[0])
    assert [step.epoch for step in trainer.steps(batches, sums)] == [epoch for epoch in range(4) for _ in range(23)]
    test = digits.load(None, "test")
    result = evaluate(ready(trainer.network, normalise, CPU), test.batches(100), (1.0, 1.0), CPU[0])
    assert result.errors[0] < 80  # a guess is right one time in ten
    assert result.errors[1] < 10


def test_the_model_of_an_exit_is_a_part_of_the_whole():
    whole, alone = toy().eval(), toy(kept=(10,)).eval()
    alone.load_state_dict(whole.exit_state(10))
    images = torch.randn(2, 3, 32, 32)
    assert alone.exits == (10,)
    assert len(alone.segments) == 1
    assert alone(images)[0].equal(whole(images)[0])


def test_who_stops_asking_stops_the_network():
    model = toy().eval()
    layers = [layer for segment in model.segments for layer in segment]
    exits = model.run(torch.randn(2, 3, 32, 32))
    first = next(exits)
    assert [layer.calls for layer in layers] == [1, 0, 0]
    second = next(exits)
    assert [layer.calls for layer in layers] == [1, 1, 1]
    assert next(exits, None) is None
    assert first.shape == second.shape == (2, 10)


def test_pictures_that_leave_are_not_computed_further():
    model = network("AuxResNet-14-3").eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        whole, exits = model(images), model.run(images)
        next(exits)
        second = exits.send(torch.tensor([True, False, True, True]))
        third = exits.send(torch.tensor([2]))
    torch.testing.assert_close(second, whole[1][[0, 2, 3]])
    torch.testing.assert_close(third, whole[2][[3]])


@pytest.mark.parametrize(
    ("parameter", "exit"),
    [
        ("stem.weight", 5),
        ("segments.0.1.convolutions.0.weight", 5),
        ("segments.2.0.norms.0.bias", 14),
        ("heads.9.linear.bias", 9),
    ],
)
def test_the_first_exit_that_a_parameter_leads_to(parameter, exit):
    model = network("AuxResNet-14-3")
    assert parameter in dict(model.named_parameters())
    assert model.exit_of(parameter) == exit


def test_every_parameter_leads_to_an_exit_and_only_deeper_exits_move_it():
    model = network("AuxResNet-14-3")
    for index, position in enumerate(model.exits):
        model.zero_grad(set_to_none=True)
        model(torch.randn(2, 3, 32, 32))[index].sum().backward()
        moved = {name for name, p in model.named_parameters() if p.grad is not None}
        in_trunk = {name for name, _ in model.named_parameters() if not name.startswith("heads")}
        assert {name for name in moved if name in in_trunk} == {n for n in in_trunk if model.exit_of(n) <= position}
