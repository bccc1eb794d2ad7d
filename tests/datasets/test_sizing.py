"""Pictures of any size and shape, brought to the size that a network takes, with what random crops go into."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from datasets import catalog, folder, splits
from datasets.decoding import as_pixels
from datasets.loaders import AugmentedBatches, Step
from datasets.sizing import PADDINGS, Margin, Sizing
from datasets.transforms import Augmentation, padded
from examples import write_pictures
from system.errors import UserError


def noise(width, height, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def smooth(width, height):
    """A picture whose colour tells the place: red from left to right, green from above down."""
    rows, columns = np.mgrid[0:height, 0:width]
    values = np.stack([255 * columns / width, 255 * rows / height, 0 * rows], 2)
    return Image.fromarray(values.round().astype(np.uint8))


@pytest.mark.parametrize("edge", [32, 40, 300])
def test_square_pictures_are_the_same_cropped_and_squeezed(edge):
    picture = noise(edge, edge)
    squeezed = as_pixels(picture, Sizing(32, "squeeze"))
    assert np.array_equal(as_pixels(picture, Sizing(32)), squeezed)
    for padding in PADDINGS:
        with_margin = as_pixels(picture, Sizing(32), Margin(4, padding))
        assert np.array_equal(with_margin, padded(squeezed, 4, 4, padding, squeezed.mean((0, 1))))


def test_of_the_longer_side_the_middle_is_taken_and_nothing_is_distorted():
    lying = noise(100, 64)
    for picture, axis in ((lying, 1), (lying.transpose(Image.Transpose.TRANSPOSE), 0)):
        middle = np.take(np.asarray(picture), range(18, 82), axis)
        assert np.array_equal(as_pixels(picture, Sizing(64)), middle)
    circle = Image.fromarray(np.uint8(255 * (np.hypot(*np.mgrid[-100:100, -200:200]) < 80)))
    seen = as_pixels(circle, Sizing(64))[:, :, 0] > 127
    assert seen.any(0).sum() == seen.any(1).sum()
    seen = as_pixels(circle, Sizing(64, "squeeze"))[:, :, 0] > 127
    assert seen.any(0).sum() < 0.6 * seen.any(1).sum()


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_margin_shows_more_of_the_picture_as_far_as_it_reaches(padding):
    pixels = np.asarray(noise(74, 64))
    found = as_pixels(Image.fromarray(pixels), Sizing(64), Margin(8, padding))
    assert np.array_equal(found, padded(pixels, 8, 3, padding, pixels.mean((0, 1))))  # 3 columns are there no more
    pixels = np.asarray(noise(64, 200))
    found = as_pixels(Image.fromarray(pixels), Sizing(64), Margin(8, padding))
    assert np.array_equal(found, padded(pixels[60:140], 0, 8, padding, pixels[60:140].mean((0, 1))))


def test_the_middle_of_a_margin_is_what_is_tested():
    rng = np.random.default_rng(0)
    for _ in range(30):
        side, width, height = (int(n) for n in (4 * rng.integers(4, 57), *rng.integers(1, 400, 2)))
        picture, pad = smooth(width, height), side // 8
        alone = as_pixels(picture, Sizing(side)).astype(int)
        around = as_pixels(picture, Sizing(side), Margin(pad)).astype(int)
        assert around.shape == (side + 2 * pad, side + 2 * pad, 3)
        assert abs(around[pad : side + pad, pad : side + pad] - alone).max() <= 1, (side, width, height)


def write_smooth(root, size=(96, 64)):
    """A folder of 40 training and 2 test pictures, all of them smooth."""
    for split, count in (("train", 20), ("test", 1)):
        for name in "ab":
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                smooth(*size).save(root / split / name / f"{index}.png")


@pytest.mark.parametrize("padding", PADDINGS)
def test_random_crops_go_along_the_longer_side_and_no_further_than_a_picture_reaches(padding, tmp_path):
    write_smooth(tmp_path)
    data = splits.for_training(
        catalog.find(str(tmp_path), tmp_path / "data", sizing=Sizing(64), padding=padding), None, 0
    )
    assert (data.train.images.shape, data.pad) == ((40, 80, 80, 3), 8)
    how = Augmentation(pad=data.pad, with_margin=True)
    steps = [Step(epoch, 0, 0.0, 64, np.arange(40), range(40), 40) for epoch in range(10)]
    batches = [AugmentedBatches(data.train, 0, how)(step).images for step in steps]
    red = torch.cat(batches)[:, 32, :, 0].int()
    assert red.shape == (400, 64)
    assert set((red[:, 0] * 96 / 255).round().tolist()) == set(range(8, 25))  # the middle begins at column 16
    assert (red.diff(dim=1) >= 2).all()  # of the picture everywhere: 96 columns have 255 levels
    green = torch.cat(batches)[:, :, 32, 1].int()
    beyond = (green.diff(dim=1) < 0).any(1)  # black below the picture, another colour or mirrored rows above, too
    parts = {"black": 8 / 17, "mean": 16 / 17, "reflect": 16 / 17}
    assert beyond.float().mean().item() == pytest.approx(parts[padding], abs=0.1)


def test_what_is_held_out_tested_or_measured_has_no_margin(tmp_path):
    write_smooth(tmp_path)
    data = splits.for_training(
        catalog.find(str(tmp_path), tmp_path / "data", sizing=Sizing(64), padding="black"), None, 10
    )
    assert (data.train.images.shape[1], data.evaluated.images.shape[1]) == (80, 64)
    assert data.test().images.shape == (2, 64, 64, 3)
    assert data.evaluated.images.eq(data.test().images[0]).all()
    assert data.evaluated.images.is_contiguous()
    again = splits.held_out(catalog.find(str(tmp_path), tmp_path / "data", sizing=Sizing(64)), 10)
    assert again.images.equal(data.evaluated.images)
    plain = replace(data.evaluated, images=data.evaluated.images[:1])  # all pictures are the same
    assert data.mean == pytest.approx(plain.statistics()[0])
    assert splits.of_folder(tmp_path / "train", Sizing(64)).images.shape == (40, 64, 64, 3)
    squeezed = splits.for_training(
        catalog.find(str(tmp_path), tmp_path / "data", sizing=Sizing(64, "squeeze"), padding="black"), None, 0
    )
    assert squeezed.train.images.shape == (40, 64, 64, 3)


@pytest.mark.parametrize(("side", "padding"), [(96, "black"), (100, "reflect")])
def test_what_is_held_out_is_found_again_to_the_bit(side, padding, tmp_path):
    """Beside a margin, pictures of such sides are scaled from another place, which rounds differently."""
    write_pictures(tmp_path / "train", {"a": 12, "b": 12}, size=(97, 101))
    write_pictures(tmp_path / "test", {"a": 1, "b": 1}, size=(97, 101))
    place = (str(tmp_path), tmp_path / "data", True)
    data = splits.for_training(catalog.find(*place, Sizing(side), padding), None, 10)
    assert splits.held_out(catalog.find(*place, Sizing(side), padding), 10).images.equal(data.evaluated.images)
    assert not splits.held_out(catalog.find(*place, Sizing(side)), 10).images.equal(data.evaluated.images)


def test_each_size_and_fit_has_decoded_pictures_of_its_own(tmp_path, monkeypatch):
    write_pictures(tmp_path / "pictures" / "train", {"a": 2}, size=(50, 40))
    cases = [
        (Sizing(32), Margin()), (Sizing(32, "squeeze"), Margin()), (Sizing(40), Margin()), (Sizing(40), Margin(5)),
        (Sizing(40), Margin(5, "mean")), (Sizing(40), Margin(5, "reflect")),
    ]  # fmt: skip
    images = [folder.load(tmp_path / "pictures", "train", tmp_path, *case).whole().images for case in cases]
    assert [part.shape[1] for part in images] == [32, 32, 40, 50, 50, 50]
    assert len(list((tmp_path / "decoded").iterdir())) == 6
    monkeypatch.setattr(folder, "decode_one", lambda path, **how: pytest.fail(f"{path} was decoded again"))
    for case, before in zip(cases, images, strict=True):
        assert folder.load(tmp_path / "pictures", "train", tmp_path, *case).whole().images.equal(before)
    assert not any(a.equal(b) for a in images for b in images if a is not b)


def test_archives_have_one_size_and_folders_in_their_place_any(tmp_path):
    with pytest.raises(UserError, match="the pictures of DIGITS are 32×32, not 64×64; give a folder of pictures"):
        splits.for_testing(catalog.find("DIGITS", tmp_path, sizing=Sizing(64)))
    for split in ("train", "test"):
        write_pictures(tmp_path / "cifar10" / split, {"cat": 2, "dog": 2})
    assert splits.for_testing(catalog.find("CIFAR10", tmp_path, sizing=Sizing(64))).images.shape == (4, 64, 64, 3)
    data = splits.for_training(catalog.find("CIFAR10", tmp_path, padding="black"), None, 0)
    assert (data.train.images.shape, data.pad) == ((4, 32, 32, 3), 4)  # no memory for black margins


@pytest.mark.parametrize("fit", ["crop", "squeeze"])
@pytest.mark.parametrize("size", [(640, 427), (301, 400), (64, 64), (65, 200)])
def test_applications_can_bring_pictures_to_size_with_pillow_alone(size, fit, tmp_path):
    picture, expected = noise(*size), as_pixels(noise(*size), Sizing(64, fit))
    if fit == "crop":  # the README recommends it
        assert np.array_equal(np.asarray(ImageOps.fit(picture, (64, 64), Image.BILINEAR)), expected)
    pytest.importorskip("onnxruntime", reason="a bundle needs the packages of requirements-export.txt")
    from inference.bundle_run import Router

    picture.save(tmp_path / "x.png")
    router = Router.__new__(Router)  # without segments, which have no part in this
    router.card = Sizing(64, fit).fields()
    assert np.array_equal(router.pixels(str(tmp_path / "x.png")), expected)
