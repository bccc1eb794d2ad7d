"""What is trained on, held out and tested on: balanced, apart, read where it is taken; folders that lack a part."""

import numpy as np
import pytest
import torch

from datasets import catalog, splits
from datasets.pictures import balanced_order
from examples import write_pictures
from programs import assert_one_line_error, script
from system.errors import UserError


def test_training_and_validation_subsets_are_balanced_and_apart(tmp_path):
    data = splits.for_training(catalog.find("DIGITS", tmp_path), 400, 300)
    assert (len(data.train), len(data.evaluated), data.validates) == (400, 300, True)
    for part in (data.train, data.evaluated):
        share = torch.bincount(part.targets, minlength=10) / len(part)
        assert (share - 0.1).abs().max() < 0.015
    seen = {bytes(image.numpy().tobytes()) for image in data.train.images}
    assert not any(image.numpy().tobytes() in seen for image in data.evaluated.images)
    larger = splits.for_training(catalog.find("DIGITS", tmp_path), 500, 0)
    assert larger.train.images[:400].equal(data.train.images)
    with pytest.raises(UserError, match="DIGITS has 1437 training pictures: too few for 1400 to train on and 100"):
        splits.for_training(catalog.find("DIGITS", tmp_path), 1400, 100)
    with pytest.raises(UserError, match="DIGITS has 1437 training pictures, of which 1437 cannot be held out; lower"):
        splits.for_training(catalog.find("DIGITS", tmp_path), None, 1437)


def test_balanced_order_is_a_permutation_with_every_class_in_every_stretch():
    targets = torch.arange(10).repeat_interleave(100)
    order = balanced_order(targets)
    assert sorted(order) == list(range(1000))
    for start in range(0, 1000, 10):
        assert sorted(targets[order[start : start + 10]].tolist()) == list(range(10))


def test_the_balanced_order_is_the_one_that_runs_were_made_with():
    """Class by class in one sweep, where it was a sweep for each class; some classes have no pictures."""
    labels = np.random.default_rng(1).choice([0, 2, 3, 7], 500, p=[0.5, 0.1, 0.3, 0.1])
    rng, place = np.random.default_rng(0), np.empty(500)
    order = rng.permutation(500)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + rng.random()) / len(members)
    assert balanced_order(torch.from_numpy(labels)).tolist() == np.argsort(place, kind="stable").tolist()


@pytest.mark.parametrize(("train_size", "val_size"), [(8, 0), (8, 4), (16, 4), (None, 4)])
def test_only_the_pictures_that_are_taken_are_read(train_size, val_size, tmp_path):
    pictures, data_dir = tmp_path / "pictures", tmp_path / "data"
    written = write_pictures(pictures / "train", {"a": 12, "b": 8})
    write_pictures(pictures / "test", {"a": 1, "b": 1})
    pixels = torch.from_numpy(np.stack(list(written.values())))
    order = balanced_order(torch.tensor([0] * 12 + [1] * 8))
    trained = 16 if train_size is None else train_size
    for index in order[trained : 20 - val_size]:
        list(written)[index].write_text("no picture")
    data = splits.for_training(catalog.find(str(pictures), data_dir), train_size, val_size)
    assert data.train.images.equal(pixels[order[:trained]])
    assert data.mean == pytest.approx(pixels[order[:trained]].float().mean((0, 1, 2)).tolist(), rel=1e-5)
    if val_size:
        assert data.evaluated.images.equal(pixels[order[-val_size:]])
    assert len(data.test()) == 2


def test_where_test_is_missing_val_is_taken_for_it(tmp_path):
    pixels = {split: write_pictures(tmp_path / split, {"a": 2, "b": 2}, seed=len(split)) for split in ("train", "val")}
    expected = torch.from_numpy(np.stack(list(pixels["val"].values())))
    data = splits.for_training(catalog.find(str(tmp_path), tmp_path), None, 0)
    assert (data.evaluated_name, data.validates) == ("test", False)
    assert data.evaluated.images.equal(expected)
    assert splits.for_testing(catalog.find(str(tmp_path), tmp_path)).images.equal(expected)
    write_pictures(tmp_path / "test", {"a": 1, "b": 1})
    assert len(splits.for_testing(catalog.find(str(tmp_path), tmp_path))) == 2


def test_of_some_test_pictures_the_others_are_not_read(tmp_path):
    write_pictures(tmp_path / "test", {"a": 6, "b": 6})
    found = catalog.find(str(tmp_path), tmp_path)
    whole = splits.for_testing(found)
    taken = balanced_order(whole.targets)[:4]
    paths = sorted((tmp_path / "test").rglob("*.png"))
    for index in set(range(12)) - set(taken.tolist()):
        paths[index].write_text("no picture")
    some = splits.for_testing(found, 4)
    assert some.images.equal(whole.images[taken])
    assert some.targets.bincount().tolist() == [2, 2]


def test_a_folder_with_nothing_but_train_trains_if_pictures_are_held_out(tmp_path):
    write_pictures(tmp_path / "train", {"a": 6, "b": 6})
    data = splits.for_training(catalog.find(str(tmp_path), tmp_path), None, 4)
    assert (len(data.train), len(data.evaluated), data.evaluated_name) == (8, 4, "validation")
    assert data.test() is None
    with pytest.raises(UserError, match=rf"{tmp_path} has neither test/ nor val/; add one, .* --valSize"):
        splits.for_training(catalog.find(str(tmp_path), tmp_path), None, 0)
    with pytest.raises(
        UserError, match=rf"{tmp_path} has neither test/ nor val/; testing needs {tmp_path}/test/<class>"
    ):
        splits.for_testing(catalog.find(str(tmp_path), tmp_path))


@pytest.mark.parametrize("split", ["test", "val"])
def test_testing_needs_nothing_to_train_on(split, tmp_path):
    write_pictures(tmp_path / split, {"a": 2, "b": 1})
    write_pictures(tmp_path / "cifar10" / split, {"a": 1, "b": 1})
    assert splits.for_testing(catalog.find(str(tmp_path), tmp_path)).targets.tolist() == [0, 0, 1]
    assert splits.for_testing(catalog.find("CIFAR10", tmp_path)).targets.tolist() == [0, 1]
    with pytest.raises(
        UserError, match=rf"{tmp_path} has no train/; the training pictures are to be in {tmp_path}/train/<class>"
    ):
        splits.for_training(catalog.find(str(tmp_path), tmp_path), None, 1)


@pytest.mark.parametrize("val_size", [0, 2])
def test_classes_that_only_one_split_has_are_named(val_size, tmp_path):
    write_pictures(tmp_path / "train", {"a": 2, "b": 2})
    write_pictures(tmp_path / "test", {"a": 1, "c": 1})
    with pytest.raises(UserError, match=r"only train has b; only test has c$"):
        splits.for_training(catalog.find(str(tmp_path), tmp_path), None, val_size)


def test_one_class_is_refused_before_its_pictures_are_read(tmp_path):
    write_pictures(tmp_path / "train", {"birds": 2})
    for picture in (tmp_path / "train" / "birds").iterdir():
        picture.write_bytes(b"no picture")
    with pytest.raises(UserError, match="are of one class, birds; it takes two to tell apart"):
        splits.for_training(catalog.find(str(tmp_path), tmp_path), None, 1)


@pytest.mark.slow
def test_the_program_says_in_one_line_what_a_folder_lacks(tmp_path):
    write_pictures(tmp_path / "train", {"a": 3, "b": 3})
    process = script("main.py", "--data", tmp_path, "--depth", "8", "--save", tmp_path, "--nGPU", "0")
    assert_one_line_error(process, 2, str(tmp_path), "neither test/ nor val/", "--valSize")
