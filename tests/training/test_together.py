"""Several processes learn what one learns: the same weights after a step, the same errors, from all pictures once."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from datasets import digits
from datasets.loaders import training_batches
from datasets.transforms import Augmentation
from examples import CPU, NORMALISE, needs_compiler, network
from inference import evaluation
from models.losses import Objective
from models.metrics import Sums
from models.norm import BatchNorm, over_all_processes
from programs import together
from system import world
from training.optimizers import Optimization
from training.plan import Plan
from training.schedules import ExitWeights, LearningRate
from training.trainer import Trainer

NETWORKS = {3: "AuxResNet-14-3", 1: "ResNet-8"}  # by the number of their exits
DISTILLING = Objective(0.1, distill=1.0, temperature=2.0, teacher="ensemble")
CASES = {
    "sgd": (Objective(), "sgd", ExitWeights((1.0, 1.0, 1.0)), {}),
    "muon, ensemble": (DISTILLING, "muon", ExitWeights((1.0, 1.0, 1.0), "deepen"), {}),
    "an exit left out": (Objective(distill=1.0), "sgd", ExitWeights((0.5, 0.0, 1.0)), {}),
    "the last exits left out": (Objective(), "muon", ExitWeights((1.0, 0.0, 0.0)), {}),
    "recomputed, averaged": (Objective(), "muon", ExitWeights((1.0, 1.0, 1.0)), {"average": 0.9}),
    "16 bits": (Objective(), "sgd", ExitWeights((1.0, 1.0, 1.0)), {"dtype": torch.bfloat16}),
    "whole batches": (Objective(), "sgd", ExitWeights((1.0, 0.5, 0.0)), {"sync_norms": True}),
    "whole batches, recomputed": (DISTILLING, "sgd", ExitWeights((1.0, 1.0, 1.0)), {"sync_norms": True}),
    "compiled": (Objective(), "sgd", ExitWeights((1.0,)), {}),
}
PLAIN = [case for case in CASES if case != "compiled"]
# What weights may differ by, in parts of their length, of which a step takes 3e-4 to 1e-2: a kernel's gradient in 16
# bits is rounded once in each process; with batch norm, rounding takes a value across the kink of a ReLU now and then.
WEIGHTS = {"16 bits": 1e-4, "whole batches": 1e-4, "whole batches, recomputed": 1e-4}
LOSS = {"16 bits": 1e-3}  # in parts of it
# Muon makes directions in which there is next to no gradient, but rounding, as long as others.
RATE = LearningRate(0.01)


class FrozenNorm(nn.BatchNorm2d):
    """Batch norm with its statistics frozen: what a picture gives does not depend on the others."""

    def train(self, mode=True):
        return super().train(False)


def steps(case, pictures, batch):
    """All weights and running statistics after the steps of an epoch, how far the weights moved, and the result."""
    objective, optimizer, weights, more = CASES[case]
    model = network(NETWORKS[len(weights.weights)])
    model.share_grad_input = "recomputed" in case
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and "sync_norms" not in more:
            module.__class__ = FrozenNorm
    compiled = len(world.own(range(batch))) if case == "compiled" and world.size() > 1 else 0
    trainer = Trainer(model, NORMALISE, CPU, objective=objective, optimization=Optimization(optimizer),
                      learning_rate=RATE, exit_weights=weights, compiled_batch=compiled, **more)  # fmt: skip
    plan = Plan(pictures, batch, epochs=1, seed=0, side=32, first_side=32)
    data = digits.load(None, "train").take(range(pictures))
    batches = training_batches(data, plan.after(0), seed=0, workers=0, augmentation=Augmentation(4), pin=False)
    sums, start = Sums(len(model.exits), CPU[0]), vector(model.parameters())
    for _ in trainer.steps(batches, sums):
        pass
    learnt = [trainer.average.network, model] if trainer.average else [model]
    learnt = vector(tensor for each in learnt for tensor in each.state_dict().values())
    moved = distance(vector(model.parameters()), start)
    return learnt, moved, sums.wrong.tolist(), sums.pictures, float(sums.loss)


def distance(found, expected):
    """In parts of what was expected."""
    return np.linalg.norm(np.subtract(found, expected)) / np.linalg.norm(expected)


def vector(tensors):
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors]).numpy()


def all_of(cases, *pictures_and_batch):
    return {case: steps(case, *pictures_and_batch) for case in cases}


def assert_together_is_alone(cases, processes, *pictures_and_batch):
    expected, answers = all_of(cases, *pictures_and_batch), together(processes, all_of, cases, *pictures_and_batch)
    for case, (weights, moved, wrong, count, loss) in expected.items():
        for found in (answer[case] for answer in answers):
            assert distance(found[0], weights) < WEIGHTS.get(case, 1e-6), case
            assert np.array_equal(found[0], answers[0][case][0]), case
            assert found[2:4] == (wrong, count), case
            assert found[4] == pytest.approx(loss, rel=LOSS.get(case, 1e-5)), case
        assert moved > 3e-4, case


@pytest.mark.parametrize(("pictures", "batch"), [(13, 13), (7, 5)], ids=["one step", "a rank with nothing"])
@pytest.mark.parametrize("processes", [2, 3])
def test_a_step_of_several_processes_is_that_of_one(processes, pictures, batch):
    assert_together_is_alone(PLAIN, processes, pictures, batch)


@needs_compiler
@pytest.mark.slow
def test_compiled_steps_of_several_processes_are_those_of_one():
    """The second one, of fewer pictures, is not compiled."""
    assert_together_is_alone(["compiled"], 2, 7, 4)


def went_on(optimizer):
    """The weights after some steps, uninterrupted, and gone on with from the state in their midst by new parts."""
    plan = Plan(32, 8, epochs=1, seed=0, side=32, first_side=32)
    data = digits.load(None, "train").take(range(32))
    ends, state = [], None
    for begin in (0, 2):
        model = network(NETWORKS[3])
        trainer = Trainer(model, NORMALISE, CPU, optimization=Optimization(optimizer), learning_rate=RATE)
        if state:
            model.load_state_dict(state[0])
            trainer.restore(state[1], begin)
        batches = training_batches(
            data, plan.after(0, begin), seed=0, workers=0, augmentation=Augmentation(4), pin=False
        )
        for step in trainer.steps(batches, Sums(len(model.exits), CPU[0])):
            if (begin, step.index) == (0, 1):
                state = copy.deepcopy((model.state_dict(), trainer.state()))
        ends.append(vector(model.state_dict().values()))
    return ends


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_three_processes_go_on_to_the_same_bits(optimizer):
    """Sums of three depend on their order, which must not depend on how many steps there were before."""
    for uninterrupted, resumed in together(3, went_on, optimizer):
        assert np.array_equal(uninterrupted, resumed)


def normalised(whole):
    """Of a batch of noise this process's pictures, normalised, and their gradients, by place; the gradients of all
    weights, and the running statistics. A process that is alone has them from PyTorch's batch norm."""
    torch.manual_seed(0)
    norm = BatchNorm(3)
    nn.init.uniform_(norm.weight)
    images, gradients = (3 * torch.randn(whole, 3, 5, 4).to(memory_format=torch.channels_last) + 1 for _ in range(2))
    own = list(world.own(range(whole)))
    taken = images[own or [0]].requires_grad_()
    with over_all_processes(norm, bool(own)) if world.size() > 1 else nullcontext():
        answers = norm(taken)
        answers.backward(gradients[own or [0]] * bool(own))
    shared = [world.total(parameter.grad) for parameter in norm.parameters()] + list(norm.buffers())
    pictures = [(index, answers[n].tolist(), taken.grad[n].tolist()) for n, index in enumerate(own)]
    return pictures, [tensor.tolist() for tensor in shared]


@pytest.mark.parametrize("whole", [7, 2], ids=["uneven", "a rank with nothing"])
def test_batch_norm_over_all_processes_is_that_of_the_whole_batch(whole):
    pictures, shared = normalised(whole)
    found = together(3, normalised, whole)
    for place, *expected in pictures:
        (same,) = [rest for own, _ in found for index, *rest in own if index == place]
        assert distance(same, expected) < 1e-6
    for _, everywhere in found:
        assert everywhere == found[0][1]
        for one, expected in zip(everywhere, shared, strict=True):
            assert distance(one, expected) < 1e-5


def answered():
    data = digits.load(None, "test")
    batches = [batch for turn in world.turns(data.batches(50)) for batch in turn]
    model = evaluation.ready(network(NETWORKS[3]).train(), NORMALISE, CPU)
    return evaluation.evaluate(model, batches, (1.0, 1.0, 1.0), CPU[0]), len(batches)


def test_errors_are_exactly_those_of_one_process():
    """Eight batches, the last of them smaller, for three processes."""
    (alone, _), shared = answered(), together(3, answered)
    assert [count for _, count in shared] == [3, 3, 2]
    for result, _ in shared:
        assert result.errors == alone.errors
        assert result.loss == pytest.approx(alone.loss, rel=1e-6)
