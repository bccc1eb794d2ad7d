"""The exit card, measured."""

import torch

from inference import card


def test_few_classes_have_no_top_5_error():
    assert card.quality(torch.eye(5), torch.arange(5))["top5_error_percent"] is None
    assert card.quality(torch.eye(6), torch.arange(6))["top5_error_percent"] == 0
