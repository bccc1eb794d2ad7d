"""Answers of mirror images and of several exits, averaged."""

import pytest
import torch

from inference.combining import Ensemble, Mirrored


def test_a_mirrored_model_averages_the_logits_of_both_sides():
    class Corner(torch.nn.Module):
        """As logits the pixels of the first row."""

        def forward(self, images):
            return [images[:, 0, :, 0].float(), 2 * images[:, 0, :, 0].float()]

    images = torch.randint(256, (5, 32, 32, 3), dtype=torch.uint8)
    row = images[:, 0, :, 0].float()
    first, second = Mirrored(Corner())(images)
    assert first.equal((row + row.flip(1)) / 2)
    assert second.equal(row + row.flip(1))
    halves = Mirrored(lambda images: [logits.bfloat16() for logits in Corner()(images)])(images)
    assert [z.dtype for z in halves] == [torch.float32] * 2  # a mean of 16-bit numbers is none of these, as a rule
    (both,) = Ensemble(Mirrored(Corner()))(images)
    assert both.exp().sum(1) == pytest.approx(torch.ones(5))
