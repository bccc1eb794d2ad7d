"""Several processes learn what one learns: the same weights after a step, the same errors, from all pictures once."""

import numpy as np
import pytest
import torch
from conftest import CPU, NORMALISE, network, together
from torch import nn

from datasets import digits
from datasets.loaders import training_batches
from datasets.transforms import Augmentation
from inference import evaluation
from models.losses import Objective
from models.metrics import Sums
from system import world
from training.optimizers import Optimization
from training.plan import Plan
from training.schedules import ExitWeights, LearningRate
from training.trainer import Trainer

NAME = "AuxResNet-14-3"
DISTILLING = Objective(0.1, distill=1.0, temperature=2.0, teacher="ensemble")
CASES = {
    "sgd": (Objective(), "sgd", ExitWeights((1.0, 1.0, 1.0)), {}),
    "muon, ensemble": (DISTILLING, "muon", ExitWeights((1.0, 1.0, 1.0), "deepen"), {}),
    "an exit left out": (Objective(distill=1.0), "sgd", ExitWeights((0.5, 0.0, 1.0)), {}),
    "the last exits left out": (Objective(), "muon", ExitWeights((1.0, 0.0, 0.0)), {}),
    "recomputed, averaged": (Objective(), "muon", ExitWeights((1.0, 1.0, 1.0)), {"average": 0.9}),
}


RATE = LearningRate(
    0.01
)  # Muon makes directions in which there is next to no gradient, but rounding, as long as others


class FrozenNorm(nn.BatchNorm2d):
    """Batch norm with its statistics frozen: what a picture gives does not depend on the others."""

    def train(self, mode=True):
        return super().train(False)


def steps(case, pictures, batch):
    """All weights after the steps of an epoch, and its result."""
    objective, optimizer, weights, more = CASES[case]
    model = network(NAME)
    model.share_grad_input = "recomputed" in case
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = FrozenNorm
    trainer = Trainer(model, NORMALISE, CPU, objective=objective, optimization=Optimization(optimizer),
                      learning_rate=RATE, exit_weights=weights, **more)  # fmt: skip
    plan = Plan(pictures, batch, epochs=1, seed=0, side=32, first_side=32)
    data = digits.load(None, "train").take(range(pictures))
    batches = training_batches(data, plan.after(0), seed=0, workers=0, augmentation=Augmentation(4), pin=False)
    sums = Sums(3, CPU[0])
    for _ in trainer.steps(batches, sums):
        pass
    learnt = [trainer.average.network, model] if trainer.average else [model]
    vector = torch.cat([p.detach().double().flatten() for each in learnt for p in each.parameters()])
    return vector.numpy(), sums.wrong.tolist(), sums.pictures, float(sums.loss)


def all_cases(*pictures_and_batch):
    return {case: steps(case, *pictures_and_batch) for case in CASES}


@pytest.mark.parametrize(("pictures", "batch"), [(13, 13), (7, 5)], ids=["one step", "a rank with nothing"])
def test_a_step_of_several_processes_is_that_of_one(pictures, batch):
    expected = all_cases(pictures, batch)
    start = torch.cat([p.detach().double().flatten() for p in network(NAME).parameters()]).numpy()
    for answers in (together(2, all_cases, pictures, batch), together(3, all_cases, pictures, batch)):
        for case, (weights, wrong, count, loss) in expected.items():
            for found in (answer[case] for answer in answers):
                difference = np.linalg.norm(found[0] - weights) / np.linalg.norm(weights)
                assert difference < 1e-6, case
                assert np.array_equal(found[0], answers[0][case][0]), case
                assert found[1:3] == (wrong, count), case
                assert found[3] == pytest.approx(loss, rel=1e-5), case
            assert np.linalg.norm(weights[-len(start) :] - start) > 1e-5 * np.linalg.norm(start)


def answered():
    data = digits.load(None, "test")
    batches = [batch for turn in world.turns(data.batches(50)) for batch in turn]
    model = evaluation.ready(network(NAME).train(), NORMALISE, CPU)
    return evaluation.evaluate(model, batches, (1.0, 1.0, 1.0), CPU[0]), len(batches)


def test_errors_are_exactly_those_of_one_process():
    """Eight batches, the last of them smaller, for three processes."""
    (alone, _), shared = answered(), together(3, answered)
    assert [count for _, count in shared] == [3, 3, 2]
    for result, _ in shared:
        assert result.errors == alone.errors
        assert result.loss == pytest.approx(alone.loss, rel=1e-6)
