"""The catalog and the data sets with archives, on small data in their real formats."""

import hashlib
import pickle
import re
import socket
import tarfile
import time
import urllib.request
from http.client import BadStatusLine, InvalidURL
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
import torch
import torchvision
from scipy.io import savemat

import opts
from datasets import catalog, digits, download, splits
from datasets.sizing import USUAL
from datasets.transforms import Normalise
from examples import Trap
from programs import together
from system.errors import UserError
from training import setup


def test_the_loaders_of_the_catalog_are_there():
    assert catalog.NAMES == ("CIFAR10", "CIFAR100", "SVHN", "DIGITS")
    for source in (*catalog.SOURCES.values(), catalog.FOLDER):
        assert callable(resolve_name(source.loader))


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
    data = splits.for_training(catalog.find(name, tmp_path), None, 0)
    files = [file for file, _ in source.train_list]
    assert data.train.images.equal(torch.from_numpy(np.concatenate([pixels[file] for file in files])))
    assert data.train.images.dtype == torch.uint8
    assert data.train.images.is_contiguous()  # channels last, as batches and the network have them
    assert data.train.targets.tolist() == [3, 1, 0, 2] * len(files)
    assert data.evaluated.images.equal(torch.from_numpy(pixels[source.test_list[0][0]]))
    assert data.classes == tuple(classes)


def test_cifar_is_unpacked_from_its_archive(tmp_path, monkeypatch):
    source = torchvision.datasets.CIFAR10
    packed = tmp_path / "packed"
    make_cifar(packed, source, monkeypatch, fine=False)
    archive = tmp_path / source.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(packed / source.base_folder, source.base_folder)
    monkeypatch.setattr(source, "tgz_md5", md5(archive))
    assert len(splits.for_training(catalog.find("CIFAR10", tmp_path), None, 0).train) == 20


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
    data = splits.for_training(catalog.find("SVHN", tmp_path), None, 0)
    assert data.train.images.equal(torch.from_numpy(np.concatenate([pixels["train"], pixels["extra"]])))
    assert data.train.targets.tolist() == [0, 1, 2, 9, 0] * 2
    assert data.evaluated.images.equal(torch.from_numpy(pixels["test"].copy()))
    assert splits.for_testing(catalog.find("SVHN", tmp_path)).images.equal(data.evaluated.images)
    assert len(splits.for_training(catalog.find("SVHN", tmp_path, False), None, 0).train) == 5
    assert (data.pad, data.flip) == (0, False)
    assert Normalise(data.mean, data.std)(data.train.images).max() <= 1


@pytest.mark.parametrize(("extra", "count"), [("true", 10), ("false", 5)])
def test_svhn_has_its_extra_pictures_unless_told(extra, count, tmp_path, monkeypatch):
    make_svhn(tmp_path, monkeypatch)
    options = opts.parse(["--data", "SVHN", "--dataDir", str(tmp_path), "--svhnExtra", extra])
    assert len(setup.data(options, USUAL).train) == count


def test_some_training_pictures_are_the_first_that_are_trained_on(tmp_path, monkeypatch):
    make_svhn(tmp_path, monkeypatch)
    trained = splits.for_training(catalog.find("SVHN", tmp_path), None, 2).train.images
    assert splits.some_for_training(catalog.find("SVHN", tmp_path), 3).images.equal(trained[:3])
    assert len(splits.some_for_training(catalog.find("SVHN", tmp_path), 500)) == 10
    (tmp_path / "extra_32x32.mat").unlink()
    assert len(splits.some_for_training(catalog.find("SVHN", tmp_path, False), 500)) == 5


def without_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.parametrize("error", [InvalidURL("nonnumeric port: 'abc'"), BadStatusLine("SSH-2.0"), ValueError("idna")])
def test_a_proxy_that_is_none_is_one_clear_error(error, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(UserError, match="CIFAR10 is not there and could not be downloaded"):
        splits.for_training(catalog.find("CIFAR10", tmp_path), None, 0)


def test_no_data_and_no_network_is_one_clear_error(tmp_path, monkeypatch):
    without_network(monkeypatch)
    for name, missing in (("CIFAR10", "cifar-10-python.tar.gz"), ("SVHN", "train_32x32.mat")):
        with pytest.raises(UserError) as caught:
            splits.for_training(catalog.find(name, tmp_path / "none"), None, 0)
        for word in (missing, str(tmp_path / "none"), "--dataDir", "try DIGITS", "Network is unreachable"):
            assert word in str(caught.value)


def test_a_damaged_archive_is_not_unpickled(tmp_path, monkeypatch):
    source = torchvision.datasets.CIFAR10
    make_cifar(tmp_path, source, monkeypatch, fine=False)
    without_network(monkeypatch)
    (tmp_path / source.base_folder / "test_batch").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    with pytest.raises(UserError, match="CIFAR10 is not there and could not be downloaded"):
        splits.for_training(catalog.find("CIFAR10", tmp_path), None, 0)
    assert not (tmp_path / "ran").exists()


def test_missing_test_pictures_are_missed_before_a_training_that_holds_out_others(tmp_path, monkeypatch):
    without_network(monkeypatch)
    make_svhn(tmp_path, monkeypatch)
    (tmp_path / "test_32x32.mat").unlink()
    with pytest.raises(UserError, match=r"test_32x32\.mat"):
        splits.for_training(catalog.find("SVHN", tmp_path), None, 2)


def test_archives_cut_short_are_named(tmp_path, monkeypatch):
    without_network(monkeypatch)
    make_svhn(tmp_path, monkeypatch)
    for name in ("extra_32x32.mat", "cifar-10-python.tar.gz"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:1000] if path.exists() else b"\x1f\x8b\x08")
    for data, name in (("SVHN", "extra_32x32.mat"), ("CIFAR10", "cifar-10-python.tar.gz")):
        with pytest.raises(UserError, match=rf"{name}.* missing or damaged"):
            splits.for_training(catalog.find(data, tmp_path), None, 0)


class Slow:
    """A data set as torchvision has them, of one file, which takes a while."""

    def __init__(self, root, download):
        path = Path(root, "archive")
        if download and not path.exists():
            with path.open("w") as file:
                for part in range(10):
                    file.write(f"{part}\n")
                    file.flush()
                    time.sleep(0.03)
        if not path.exists() or len(path.read_text().splitlines()) < 10:
            raise RuntimeError("missing or corrupted")


def fetched(root):
    download.fetch(Slow, root, "archive is")


class Silent:
    """A data set from a server that takes connections, and says nothing."""

    def __init__(self, root, download):
        if not download:
            raise RuntimeError("missing or corrupted")
        assert socket.getdefaulttimeout()
        with socket.create_server(("127.0.0.1", 0)) as server:
            urllib.request.urlopen(f"http://127.0.0.1:{server.getsockname()[1]}/")


def test_a_server_that_says_nothing_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SILENCE", 0.2)
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(UserError, match=r"Silent is not there and could not be downloaded \(timed out\)"):
        download.fetch(Silent, tmp_path, "archive is")
    assert socket.getdefaulttimeout() is None


def test_two_programs_do_not_download_into_one_file(tmp_path):
    together(2, fetched, tmp_path)


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
