"""The moving average of the weights, and its batch norm statistics."""

from pathlib import Path

import pytest
import torch

from datasets import catalog, splits
from datasets.transforms import Augmentation
from examples import CPU, NORMALISE, network
from training.averaging import Average
from training.evaluator import Evaluator
from training.plan import Plan
from training.trainer import Trainer


def test_the_average_follows_the_weights():
    model = network("ResNet-8")
    average = Average(model, 0.9)
    expected = model.stem.weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            model.stem.weight.normal_()
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.stem.weight.detach()
    torch.testing.assert_close(average.network.stem.weight, expected)
    fresh = Average(network("ResNet-8"), 0.9)
    fresh.restore(average.state())
    assert (fresh.steps, fresh.network.stem.weight.equal(average.network.stem.weight)) == (30, True)
    with pytest.raises(ValueError, match="lacks"):
        fresh.restore({"weights": {}, "steps": 0})


def test_statistics_are_measured_on_mixed_pictures_where_such_are_trained_on():
    data, plan = (
        splits.for_training(catalog.find("DIGITS", Path()), 200, 0),
        Plan(200, 32, 1, seed=0, side=32, first_side=32),
    )
    found = {}
    for mixup in (0.0, 1.0):
        trainer = Trainer(network("ResNet-8"), NORMALISE, CPU, average=0.9, mixup=mixup)
        kept = Evaluator(trainer, data, plan, Augmentation(4)).network_to_keep(0)
        (found[mixup], *_) = [b.mean().item() for name, b in kept.named_buffers() if name.endswith("running_var")]
    assert 0.3 < found[1.0] / found[0.0] < 0.9
