"""The moving average of the weights."""

import pytest
import torch
from conftest import network

from training.averaging import Average


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
