"""Batches: the same whoever makes them, and varied as torchvision would."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as TF

from datasets.loaders import training_batches, varied_sample
from datasets.pictures import Pictures
from datasets.transforms import Augmentation, Normalise, augment, crop_and_flip, cut_out, padded, shrink
from training.plan import Plan

PLAIN = Augmentation(pad=4, flip=True)


@pytest.mark.parametrize(("padding", "value"), [("black", 0), ("mean", 100), ("reflect", None)])
def test_crop_and_flip_are_torchvisions(padding, value):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    tops, lefts = rng.integers(0, 9, (2, 64))
    flips = rng.random(64) < 0.5
    ours = crop_and_flip(padded(images, 4, 4, padding, (100.4, 99.6, 100.0)), tops, lefts, flips, pad=4)
    for index in range(64):
        picture = torch.from_numpy(images[index]).permute(2, 0, 1)
        picture = TF.pad(picture, [4], padding_mode="reflect") if value is None else TF.pad(picture, [4], value)
        picture = TF.crop(picture, int(tops[index]), int(lefts[index]), 32, 32)
        picture = TF.hflip(picture) if flips[index] else picture
        assert torch.from_numpy(ours[index]).equal(picture.permute(1, 2, 0)), index


def test_augmentation_uses_every_offset_and_flips_half():
    images = np.tile(np.arange(1, 32 * 32 + 1, dtype=np.int32).reshape(1, 32, 32, 1), (4000, 1, 1, 1))
    moved = augment(images, Augmentation(pad=4, flip=True), np.random.default_rng(0))
    centre = moved[:, 16, 15:17, 0]
    flipped = centre[:, 0] > centre[:, 1]
    assert 0.45 < flipped.mean() < 0.55
    rows = (centre[:, 0] - 1) // 32 - 16
    assert np.unique(rows).tolist() == list(range(-4, 5))


def test_normalise():
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    mean, std = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
    result = Normalise(mean, std)(images)
    assert result.is_contiguous(memory_format=torch.channels_last)
    expected = TF.normalize(images.permute(0, 3, 1, 2).float(), mean, std)
    torch.testing.assert_close(result, expected)
    mixed = images.float()  # of the caller, who may use them again
    torch.testing.assert_close(Normalise(mean, std)(mixed), expected)
    assert mixed.equal(images.float())


def stream(pictures, workers=0, done=(0, 0), how=PLAIN, first_side=32, epochs=3):
    steps = Plan(len(pictures), 32, epochs, seed=5, side=32, first_side=first_side).after(*done)
    return list(training_batches(pictures, steps, seed=5, workers=workers, augmentation=how, pin=False))


@pytest.fixture(scope="module")
def noise():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (100, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return Pictures(images, torch.arange(100), ("x",) * 100)


@pytest.mark.parametrize(("how", "first_side"), [(PLAIN, 32), (replace(PLAIN, alternate=True, cutout=8), 16)])
def test_batches_do_not_depend_on_the_number_of_workers_or_on_where_the_stream_starts(how, first_side, noise):
    alone, several = (stream(noise, workers, (0, 0), how, first_side) for workers in (0, 3))
    late = stream(noise, 0, (1, 1), how, first_side)
    assert [(batch.step.epoch, batch.step.index) for batch in alone] == [(e, i) for e in range(3) for i in range(4)]
    for expected, found in zip(alone, several, strict=True):
        assert found.images.equal(expected.images)
        assert found.targets.equal(expected.targets)
    assert late[0].images.equal(alone[5].images)
    for epoch in range(3):
        targets = torch.cat([batch.targets for batch in alone[4 * epoch : 4 * epoch + 4]])
        assert sorted(targets.tolist()) == list(range(100))
    assert not alone[0].targets.equal(alone[4].targets)


def mirrored(pictures, how, epochs):
    """Whether each picture was mirrored, in each epoch; the pictures have a bright left half."""
    result = np.empty((epochs, len(pictures)), bool)
    for step, images, targets in stream(pictures, how=how, epochs=epochs):
        result[step.epoch, targets.numpy()] = images[:, 16, 24, 0] > images[:, 16, 8, 0]
    return result


def test_alternate_flips_show_both_sides_of_every_picture_in_two_epochs():
    images = torch.zeros(100, 32, 32, 3, dtype=torch.uint8)
    images[:, :, :16] = 200
    pictures = Pictures(images, torch.arange(100), ("x",) * 100)
    alternate = mirrored(pictures, replace(PLAIN, alternate=True), 4)
    assert 30 < alternate[0].sum() < 70
    assert (alternate[0] == ~alternate[1]).all()
    assert (alternate[:2] == alternate[2:]).all()
    by_chance = mirrored(pictures, PLAIN, 4)
    assert 30 < (by_chance[0] == by_chance[1]).sum() < 70


def test_cut_out_paints_the_part_of_a_square_that_lies_inside():
    images = np.full((3, 32, 32, 3), 200, np.uint8)
    cut_out(images, np.array([16, 0, 31]), np.array([16, 0, 5]), 8, (1.2, 2.0, 2.6))
    painted = (images == np.array([1, 2, 3], np.uint8)).all(-1)
    assert painted.sum((1, 2)).tolist() == [64, 16, 5 * 8]
    assert painted[0, 12:20, 12:20].all()
    assert painted[1, :4, :4].all()
    assert painted[2, 27:, 1:9].all()
    assert (images[~painted] == 200).all()


def test_pictures_grow_in_the_first_half(noise):
    sides = [batch.images.shape[1:3] for batch in stream(noise, first_side=16)]
    assert sides == [(16, 16)] * 3 + [(24, 24)] * 3 + [(32, 32)] * 6


def test_shrinking_is_what_torchvision_does(noise):
    small = shrink(noise.images, 16)
    expected = TF.resize(noise.images.permute(0, 3, 1, 2), [16, 16], antialias=True)
    torch.testing.assert_close(small.permute(0, 3, 1, 2), expected, rtol=0, atol=1)  # rounded in another order
    assert shrink(noise.images, 32) is noise.images


def test_a_varied_sample_is_full_size_and_always_the_same(noise):
    how = replace(PLAIN, alternate=True)
    sample = varied_sample(noise, 60, 3, how)
    assert sample.shape == (60, 32, 32, 3)
    assert sample.equal(varied_sample(noise, 60, 3, how))
    assert (sample[:, 0] == 0).all((1, 2)).float().mean() > 0.2  # the black margins of crops
    assert len(varied_sample(noise, 1000, 3, Augmentation())) == 100
