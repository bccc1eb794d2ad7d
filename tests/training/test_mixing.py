"""Mixup: pictures and classes are mixed in pairs, and the loss is that of the mixture."""

import pytest
import torch
from torch.nn import functional as F

from models.losses import multiway_loss
from training import mixing


def test_pictures_and_classes_are_mixed_alike():
    images = torch.randint(0, 256, (5, 4, 4, 3), dtype=torch.uint8)
    targets = torch.tensor([0, 1, 2, 1, 3])
    pictures, classes = mixing.mixed(images, targets, 4, 0.75)
    assert torch.allclose(pictures[1], 0.75 * images[1] + 0.25 * images[3])
    assert torch.allclose(pictures[2], images[2].float())  # in the middle, its own partner
    assert classes.tolist() == [[0.75, 0, 0, 0.25], [0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0.25, 0, 0, 0.75]]
    assert classes.argmax(1).equal(targets)


def test_the_loss_of_a_mixture_is_the_mixture_of_the_losses():
    logits, targets = torch.randn(6, 10), torch.randint(10, (6,))
    _, classes = mixing.mixed(torch.zeros(6, 1, 1, 3), targets, 10, 0.7)
    loss, _ = multiway_loss([logits], classes, [1.0], smoothing=0.1)
    own, partner = (F.cross_entropy(logits, t, label_smoothing=0.1) for t in (targets, targets.flip(0)))
    assert loss.item() == pytest.approx(0.7 * own.item() + 0.3 * partner.item(), rel=1e-5)


def test_shares_follow_the_beta_distribution_and_differ_from_step_to_step():
    few, many = ([mixing.share(alpha, 0, 0, index) for index in range(2000)] for alpha in (0.1, 5.0))
    assert min(few + many) >= 0.5 and max(few + many) <= 1
    assert sum(few) / 2000 == pytest.approx(0.941, abs=0.01)  # the mean of max(b, 1 - b), b from Beta(0.1, 0.1)
    assert sum(many) / 2000 == pytest.approx(0.623, abs=0.01)
    assert len(set(few[:100])) > 50
    assert mixing.share(1.0, 0, 1, 2) == mixing.share(1.0, 0, 1, 2) != mixing.share(1.0, 1, 1, 2)


WAYS = (1, 1.0, 0), (7, 1.0, 0), (7, 1.0, 1)  # how many batches, α, seed


def test_a_sample_is_mixed_by_chance_and_always_the_same():
    images = torch.randint(0, 256, (50, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mixed, again, other = (torch.cat(list(mixing.mixed_batches(images, *words))) for words in WAYS)
    assert mixed.equal(again) and not mixed.equal(other)
    assert mixed.min() >= 0 and mixed.max() <= 255
    assert mixed.mean().item() == pytest.approx(images.float().mean().item(), abs=5)
    # A mixture of two has E[b² + (1 - b)²] = 2/3 of the variance.
    assert mixed.var().item() == pytest.approx(2 / 3 * images.float().var().item(), rel=0.15)
