"""A run knows its data: what it remembers of them, and how those that it finds later differ."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datasets import catalog, identity, splits
from examples import write_pictures

CLASSES = {"cat": 4, "dog": 6}


def remembered(root, val_size=0):
    return identity.describe(splits.for_training(catalog.find(str(root), root / "data"), None, val_size))


@pytest.fixture
def folder(tmp_path):
    for seed, split in enumerate(("train", "test")):
        write_pictures(tmp_path / split, CLASSES, seed=seed)
    return tmp_path


def test_the_same_data_are_the_same(folder):
    assert identity.difference(remembered(folder), remembered(folder)) is None


def rename(folder):
    for split in ("train", "test"):
        (folder / split / "dog").rename(folder / split / "wolf")


def swap(folder):
    """Two classes change their pictures: the same names, the same counts but for one."""
    for split in ("train", "test"):
        for old, new in (("dog", "x"), ("cat", "dog"), ("x", "cat")):
            (folder / split / old).rename(folder / split / new)


def another_class(folder):
    for split in ("train", "test"):
        write_pictures(folder / split, {"emu": 1}, seed=9)


def add(split):
    return lambda folder: write_pictures(folder / split, {"cat/more": 3}, seed=9)


def replace_one(split):
    return lambda folder: (folder / split / "dog" / "002.png").write_bytes(
        (folder / split / "dog" / "003.png").read_bytes()
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rename, "classes wolf in place of dog"),
        (another_class, "classes emu"),
        (swap, "6 of cat, there were 4, 4 of dog, there were 6"),
        (add("train"), "training pictures: 7 of cat, there were 4"),
        (add("test"), "test pictures: 7 of cat, there were 4"),
        (replace_one("train"), "training pictures have changed"),
        (replace_one("test"), "test pictures have changed"),
    ],
)
def test_what_changed_is_named(change, words, folder):
    before = remembered(folder)
    change(folder)
    assert words in identity.difference(remembered(folder), before)


def test_many_changes_are_told_in_few_words():
    data = splits.for_training(catalog.find("DIGITS", Path()), 100, 0)
    before, fewer = (identity.describe(replace(data, train=data.train.take(range(count)))) for count in (100, 50))
    assert "5 of 2, there were 10, and so on for 10 classes" in identity.difference(fewer, before)
    classes = before["classes"]
    assert "their order" in identity.difference(before, {**before, "classes": classes[::-1]})
    assert "no class emu" in identity.difference(before, {**before, "classes": [*classes, "emu"]})


def test_pictures_that_are_held_out_count(folder):
    before = remembered(folder, val_size=4)
    assert sum(before["validation"]["counts"]) == 4
    data = splits.for_training(catalog.find(str(folder), folder / "data"), None, 4)
    other = data.evaluated.images.clone()
    other[0, 0, 0, 0] ^= 1
    changed = replace(data, evaluated=replace(data.evaluated, images=other))
    assert "validation pictures have changed" in identity.difference(identity.describe(changed), before)


@pytest.mark.parametrize("lie", [None, 3, {}, {"classes": 1}, {"classes": ["cat", "dog"]}, [["cat"]]])
def test_what_no_run_remembers_is_refused(lie, folder):
    assert identity.difference(remembered(folder), lie) == "what the state says of them cannot be read"


@pytest.mark.parametrize("place", ["classes", "mean", "counts"])
def test_tensors_among_what_a_run_remembers_are_refused(place, folder):
    before = copy.deepcopy(remembered(folder))
    (before["training"] if place == "counts" else before)[place][0] = torch.zeros(3)
    assert identity.difference(remembered(folder), before)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["mean"].__setitem__(0, 10**400),
        lambda data: data["mean"].pop(),
        lambda data: data.update(mean=dict.fromkeys(data["mean"])),
        lambda data: data.update(more=1),
        lambda data: data["training"].update(more=1),
    ],
)
def test_what_is_of_another_form_is_refused(change, folder):
    before = copy.deepcopy(remembered(folder))
    change(before)
    assert identity.difference(remembered(folder), before) == "what the state says of them cannot be read"


@pytest.mark.parametrize(("change", "word"), [({"mean": [1.0, 1.0, 1.0]}, "normalisation"), ({"std": None}, "be read")])
def test_normalisation_counts_but_for_the_rounding_of_another_processor(change, word, folder):
    before = remembered(folder)
    assert identity.difference(before, {**before, "mean": [value * (1 + 1e-12) for value in before["mean"]]}) is None
    assert word in identity.difference(before, {**before, **change})


def test_pixels_that_are_not_contiguous_are_the_same_pixels(folder):
    data = splits.for_training(catalog.find(str(folder), folder / "data"), None, 0)
    turned = data.train.images.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)
    assert not turned.is_contiguous()
    changed = replace(data, train=replace(data.train, images=turned))
    assert identity.describe(changed) == identity.describe(data)
