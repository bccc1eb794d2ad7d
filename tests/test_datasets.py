"""The sources on small data in their real formats, subsets, and augmentation against torchvision's."""

import hashlib
import pickle
import re
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from conftest import write_pictures
from PIL import Image
from scipy.io import savemat
from torchvision.transforms import functional as TF

from datasets import catalog, digits, folder
from datasets.loaders import training_batches, varied_sample
from datasets.pictures import Pictures, balanced_order
from datasets.transforms import Augmentation, Normalise, augment, crop_and_flip, cut_out, shrink
from system.errors import UserError

PLAIN = Augmentation(pad=4, flip=True)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def make_cifar(root, source, monkeypatch, fine):
    """A CIFAR archive of 4 pictures a file, as its authors pack it; returns the pixels of the files in order."""
    rng = np.random.default_rng(0)
    base = root / source.base_folder
    base.mkdir(parents=True)
    key = "fine_labels" if fine else "labels"
    pixels, sums = {}, {}
    for name, _ in (*source.train_list, *source.test_list):
        rows = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
        (base / name).write_bytes(pickle.dumps({"data": rows, key: [3, 1, 0, 2]}, protocol=2))
        pixels[name] = rows.reshape(4, 3, 32, 32).transpose(0, 2, 3, 1)
    meta = source.meta
    classes = [f"class {index}" for index in range(100 if fine else 10)]
    (base / meta["filename"]).write_bytes(pickle.dumps({meta["key"]: classes}, protocol=2))
    sums = {name: md5(base / name) for name in (*pixels, meta["filename"])}
    for attribute in ("train_list", "test_list"):
        monkeypatch.setattr(source, attribute, [[name, sums[name]] for name, _ in getattr(source, attribute)])
    monkeypatch.setattr(source, "meta", {**meta, "md5": sums[meta["filename"]]})
    return pixels, classes


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_cifar_archives(name, tmp_path, monkeypatch):
    source = getattr(torchvision.datasets, name)
    pixels, classes = make_cifar(tmp_path, source, monkeypatch, fine=name == "CIFAR100")
    data = catalog.for_training(name, tmp_path, True, None, 0)
    files = [file for file, _ in source.train_list]
    assert data.train.images.equal(torch.from_numpy(np.concatenate([pixels[file] for file in files])))
    assert data.train.images.dtype == torch.uint8
    assert data.train.targets.tolist() == [3, 1, 0, 2] * len(files)
    assert data.held_out.images.equal(torch.from_numpy(pixels[source.test_list[0][0]]))
    assert data.classes == tuple(classes)


def test_cifar_is_unpacked_from_its_archive(tmp_path, monkeypatch):
    source = torchvision.datasets.CIFAR10
    packed = tmp_path / "packed"
    make_cifar(packed, source, monkeypatch, fine=False)
    archive = tmp_path / source.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(packed / source.base_folder, source.base_folder)
    monkeypatch.setattr(source, "tgz_md5", md5(archive))
    assert len(catalog.for_training("CIFAR10", tmp_path, True, None, 0).train) == 20


def make_svhn(root, monkeypatch):
    """The three `.mat` files of SVHN with 5 pictures each, where the digit 0 is labelled 10."""
    rng = np.random.default_rng(0)
    source, pixels, listing = torchvision.datasets.SVHN, {}, {}
    for part, (url, name, _) in source.split_list.items():
        pixels[part] = rng.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
        savemat(root / name, {"X": pixels[part], "y": np.array([[10], [1], [2], [9], [10]], dtype=np.uint8)})
        listing[part] = [url, name, md5(root / name)]
    monkeypatch.setattr(source, "split_list", listing)
    return {part: array.transpose(3, 0, 1, 2) for part, array in pixels.items()}


def test_svhn_files(tmp_path, monkeypatch):
    pixels = make_svhn(tmp_path, monkeypatch)
    data = catalog.for_training("SVHN", tmp_path, True, None, 0)
    assert data.train.images.equal(torch.from_numpy(np.concatenate([pixels["train"], pixels["extra"]])))
    assert data.train.targets.tolist() == [0, 1, 2, 9, 0] * 2
    assert data.held_out.images.equal(torch.from_numpy(pixels["test"].copy()))
    assert len(catalog.for_training("SVHN", tmp_path, False, None, 0).train) == 5
    assert (data.source.pad, data.source.flip) == (0, False)
    assert Normalise(data.mean, data.std)(data.train.images).max() <= 1


def without_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def test_no_data_and_no_network_is_one_clear_error(tmp_path, monkeypatch):
    without_network(monkeypatch)
    for name, missing in (("CIFAR10", "cifar-10-python.tar.gz"), ("SVHN", "train_32x32.mat")):
        with pytest.raises(UserError) as caught:
            catalog.for_training(name, tmp_path / "none", True, None, 0)
        for word in (missing, str(tmp_path / "none"), "--dataDir", "--data DIGITS", "Network is unreachable"):
            assert word in str(caught.value)


def test_a_damaged_archive_is_not_unpickled(tmp_path, monkeypatch):
    source = torchvision.datasets.CIFAR10
    make_cifar(tmp_path, source, monkeypatch, fine=False)
    without_network(monkeypatch)
    (tmp_path / source.base_folder / "test_batch").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(UserError, match="damaged"):
        catalog.for_training("CIFAR10", tmp_path, True, None, 0)


def test_archives_cut_short_are_named(tmp_path, monkeypatch):
    without_network(monkeypatch)
    make_svhn(tmp_path, monkeypatch)
    for name in ("extra_32x32.mat", "cifar-10-python.tar.gz"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:1000] if path.exists() else b"\x1f\x8b\x08")
    for data, name in (("SVHN", "extra_32x32.mat"), ("CIFAR10", "cifar-10-python.tar.gz")):
        with pytest.raises(UserError, match=rf"{name}.* missing or damaged"):
            catalog.for_training(data, tmp_path, True, None, 0)


def test_every_download_has_a_checksum():
    sums = [torchvision.datasets.CIFAR10.tgz_md5, torchvision.datasets.CIFAR100.tgz_md5]
    sums += [checksum for _, _, checksum in torchvision.datasets.SVHN.split_list.values()]
    assert len(sums) == 5
    assert all(re.fullmatch("[0-9a-f]{32}", checksum) for checksum in sums)


def test_digits_are_split_once_and_for_all():
    train, test = digits.load(None, "train"), digits.load(None, "test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.shape == (1437, 32, 32, 3)
    shares = [torch.bincount(part.targets, minlength=10) / len(part) for part in (train, test)]
    assert (shares[0] - shares[1]).abs().max() < 0.01
    everything = torch.cat([train.images, test.images]).flatten(1)
    assert len(everything.unique(dim=0)) == 1797
    assert int(everything.max()) == 255


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_folder_of_pictures(tmp_path, suffix):
    pixels = write_pictures(tmp_path / "train", {"cat": 3, "ant": 2}, suffix=suffix)
    write_pictures(tmp_path / "test", {"cat": 1, "ant": 1})
    data = catalog.for_training(str(tmp_path), tmp_path, True, None, 0)
    assert data.classes == ("ant", "cat")
    assert data.train.targets.tolist() == [0, 0, 1, 1, 1]
    assert data.train.images.equal(torch.from_numpy(np.stack(list(pixels.values()))))
    values = np.stack(list(pixels.values())).reshape(-1, 3)
    assert data.mean == pytest.approx(values.mean(0))
    assert data.std == pytest.approx(values.std(0))


def test_folder_pictures_of_any_size_and_kind_become_32x32_rgb(tmp_path):
    write_pictures(tmp_path / "train", {"a": 1}, size=(50, 20), suffix="jpg")
    Image.new("L", (7, 9), 200).save(tmp_path / "train" / "a" / "grey.png")
    pictures = folder.load(tmp_path, "train")
    assert pictures.images.shape == (2, 32, 32, 3)
    assert pictures.images[1].eq(200).all()


def test_folder_stands_in_for_the_archives_of_the_same_name(tmp_path):
    for split in ("train", "test"):
        write_pictures(tmp_path / "cifar10" / split, {"airplane": 2, "truck": 2})
    data = catalog.for_training("CIFAR10", tmp_path, True, None, 0)
    assert data.classes == ("airplane", "truck")
    assert data.mean == catalog.SOURCES["CIFAR10"].mean


def test_bad_folders_are_named(tmp_path):
    write_pictures(tmp_path / "train", {"a": 2, "b": 2})
    write_pictures(tmp_path / "test", {"a": 1, "c": 1})
    with pytest.raises(UserError, match="b, c"):
        catalog.for_training(str(tmp_path), tmp_path, True, None, 0)
    (tmp_path / "train" / "a" / "x.png").write_text("no picture")
    with pytest.raises(UserError, match=r"x\.png"):
        folder.load(tmp_path, "train")
    with pytest.raises(UserError, match="val/"):
        folder.load(tmp_path, "val")


def test_training_and_validation_subsets_are_balanced_and_apart(tmp_path):
    data = catalog.for_training("DIGITS", tmp_path, True, 400, 300)
    assert (len(data.train), len(data.held_out), data.validates) == (400, 300, True)
    for part in (data.train, data.held_out):
        share = torch.bincount(part.targets, minlength=10) / len(part)
        assert (share - 0.1).abs().max() < 0.015
    seen = {bytes(image.numpy().tobytes()) for image in data.train.images}
    assert not any(image.numpy().tobytes() in seen for image in data.held_out.images)
    larger = catalog.for_training("DIGITS", tmp_path, True, 500, 0)
    assert larger.train.images[:400].equal(data.train.images)
    with pytest.raises(UserError, match="1437"):
        catalog.for_training("DIGITS", tmp_path, True, 1400, 100)


def test_balanced_order_is_a_permutation_with_every_class_in_every_stretch():
    targets = torch.arange(10).repeat_interleave(100)
    order = balanced_order(targets)
    assert sorted(order) == list(range(1000))
    for start in range(0, 1000, 10):
        assert sorted(targets[order[start : start + 10]].tolist()) == list(range(10))


def test_crop_and_flip_are_torchvisions():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    tops, lefts = rng.integers(0, 9, (2, 64))
    flips = rng.random(64) < 0.5
    ours = crop_and_flip(images, tops, lefts, flips, pad=4)
    for index in range(64):
        picture = TF.pad(torch.from_numpy(images[index]).permute(2, 0, 1), [4])
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


def stream(pictures, workers, done=0, how=PLAIN):
    return list(
        training_batches(
            pictures, batch_size=32, epochs=3, done=done, seed=5, workers=workers, augmentation=how, pin=False
        )
    )


@pytest.fixture(scope="module")
def noise():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (100, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return Pictures(images, torch.arange(100), ("x",) * 100)


@pytest.mark.parametrize("how", [PLAIN, replace(PLAIN, alternate=True, cutout=8, first_side=16)])
def test_batches_do_not_depend_on_the_number_of_workers_or_on_where_the_stream_starts(how, noise):
    alone, several, late = stream(noise, 0, 0, how), stream(noise, 3, 0, how), stream(noise, 0, 5, how)
    assert len(alone) == 12
    for expected, found in zip(alone, several, strict=True):
        assert found[0].equal(expected[0])
        assert found[1].equal(expected[1])
    assert late[0][0].equal(alone[5][0])
    for epoch in range(3):
        assert sorted(torch.cat([t for _, t in alone[4 * epoch : 4 * epoch + 4]]).tolist()) == list(range(100))
    assert not alone[0][1].equal(alone[4][1])


def mirrored(pictures, how, epochs):
    """Whether each picture was mirrored, in each epoch; the pictures have a bright left half."""
    result = np.empty((epochs, len(pictures)), bool)
    batches = training_batches(
        pictures, batch_size=32, epochs=epochs, done=0, seed=5, workers=0, augmentation=how, pin=False
    )
    per_epoch = -(-len(pictures) // 32)
    for index, (images, targets) in enumerate(batches):
        result[index // per_epoch, targets.numpy()] = images[:, 16, 24, 0] > images[:, 16, 8, 0]
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
    sides = [images.shape[1:3] for images, _ in stream(noise, 0, 0, replace(PLAIN, first_side=16))]
    assert sides == [(16, 16)] * 3 + [(24, 24)] * 3 + [(32, 32)] * 6


def test_shrinking_is_what_torchvision_does(noise):
    small = shrink(noise.images, 16)
    expected = TF.resize(noise.images.permute(0, 3, 1, 2), [16, 16], antialias=True)
    torch.testing.assert_close(small.permute(0, 3, 1, 2), expected, rtol=0, atol=1)  # rounded in another order
    assert shrink(noise.images, 32) is noise.images


def test_a_varied_sample_is_full_size_and_always_the_same(noise):
    how = replace(PLAIN, alternate=True, first_side=16)
    sample = varied_sample(noise, 60, 3, how)
    assert sample.shape == (60, 32, 32, 3)
    assert sample.equal(varied_sample(noise, 60, 3, how))
    assert (sample[:, 0] == 0).all((1, 2)).float().mean() > 0.2  # the black margins of crops
    assert len(varied_sample(noise, 1000, 3, Augmentation())) == 100
