"""Folders of pictures as torchvision lists them; links and files that are no pictures; decoded pictures, kept."""

import os
import pickle
import random
import resource
import signal
import socket
import sys
import time
import tracemalloc
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from datasets import cache, catalog, decoding, folder, splits
from datasets.sizing import USUAL
from examples import flipped, write_pictures
from system import processors
from system.errors import UserError


def pixels_of(written):
    return torch.from_numpy(np.stack(list(written.values())))


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_folder_of_pictures(tmp_path, suffix):
    pixels = write_pictures(tmp_path / "train", {"cat": 3, "ant": 2}, suffix=suffix)
    write_pictures(tmp_path / "test", {"cat": 1, "ant": 1})
    data = splits.for_training(catalog.find(str(tmp_path), tmp_path), None, 0)
    assert data.classes == ("ant", "cat")
    assert data.train.targets.tolist() == [0, 0, 1, 1, 1]
    assert data.train.images.equal(pixels_of(pixels))
    values = np.stack(list(pixels.values())).reshape(-1, 3)
    assert data.mean == pytest.approx(values.mean(0))
    assert data.std == pytest.approx(values.std(0))


def test_pictures_of_any_size_and_kind_become_32x32_rgb(tmp_path):
    write_pictures(tmp_path / "train", {"a": 1}, size=(50, 20), suffix="jpg")
    Image.new("L", (7, 9), 200).save(tmp_path / "train" / "a" / "grey.png")
    pictures = folder.load(tmp_path, "train").whole()
    assert pictures.images.shape == (2, 32, 32, 3)
    assert pictures.images[1].eq(200).all()


def test_folder_stands_in_for_the_archives_of_the_same_name(tmp_path):
    for split in ("train", "test"):
        write_pictures(tmp_path / "cifar10" / split, {"airplane": 2, "truck": 2})
    data = splits.for_training(catalog.find("CIFAR10", tmp_path), None, 0)
    assert data.classes == ("airplane", "truck")
    assert data.mean == catalog.SOURCES["CIFAR10"].mean


def test_bad_folders_are_named(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=f"{tmp_path}/train has no folders of classes"):
        folder.load(tmp_path, "train")
    write_pictures(tmp_path / "train", {"a": 2})
    (tmp_path / "train" / "a" / "x.png").write_text("no picture")
    with pytest.raises(UserError, match=r"x\.png"):
        folder.load(tmp_path, "train").whole()
    assert folder.load(tmp_path, "test") is None
    assert folder.load(tmp_path / "nowhere", "train") is None


def test_files_are_listed_as_torchvision_lists_them(tmp_path):
    for place, suffix in (("b", "png"), ("b/deep/er", "JPG"), ("b-c", "webp"), ("a", "ppm"), ("b/deep", "bmp")):
        (tmp_path / "train" / place).mkdir(parents=True, exist_ok=True)
        for name in ("10", "9", "é"):
            Image.new("RGB", (4, 4)).save(tmp_path / "train" / place / f"{name}.{suffix}")
    listing, expected = folder.load(tmp_path, "train"), ImageFolder(str(tmp_path / "train"))
    assert list(zip(listing.paths, listing.targets.tolist(), strict=True)) == expected.samples
    assert list(listing.classes) == expected.classes


def test_links_to_folders_within_a_class_are_not_followed(tmp_path):
    written = write_pictures(tmp_path / "train", {"a": 2, "b": 2})
    for name, target in (("loop", "."), ("up", "../.."), ("b", "../b")):
        (tmp_path / "train" / "a" / name).symlink_to(target)
    assert folder.load(tmp_path, "train").whole().images.equal(pixels_of(written))


def test_a_class_and_a_picture_may_be_links(tmp_path):
    elsewhere = write_pictures(tmp_path / "elsewhere", {"b": 2})
    written = write_pictures(tmp_path / "train", {"a": 1})
    (tmp_path / "train" / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (tmp_path / "train" / "a" / "linked.png").symlink_to(next(iter(elsewhere)))
    pictures = folder.load(tmp_path, "train").whole()
    assert pictures.targets.tolist() == [0, 0, 1, 1]
    first, second = elsewhere.values()
    assert pictures.images.numpy().tolist() == np.stack([*written.values(), first, first, second]).tolist()


@pytest.mark.parametrize("target", [".", "..", "/"])
def test_a_class_that_is_a_link_to_what_holds_it(target, tmp_path):
    write_pictures(tmp_path / "train", {"a": 2})
    (tmp_path / "train" / "b").symlink_to(target)
    with pytest.raises(UserError, match=f"{tmp_path}/train/b is a link to a folder that holds it"):
        folder.load(tmp_path, "train")


@pytest.mark.parametrize("name", ["test", "test/c"])
def test_a_folder_that_is_a_link_to_nothing_is_not_passed_over(name, tmp_path):
    for split in ("val", *(("test",) if name == "test/c" else ())):
        write_pictures(tmp_path / split, {"a": 1, "b": 1})
    (tmp_path / name).symlink_to(tmp_path / "not" / "mounted")
    with pytest.raises(UserError, match=f"{tmp_path}/{name} is a link to nothing; bring back"):
        folder.load(tmp_path, "test")


def test_the_folder_beside_one_that_is_not_mounted_is_not_taken_for_it(tmp_path):
    write_pictures(tmp_path / "a", {"b": 1, "c": 1})
    (tmp_path / "a" / "val").symlink_to(tmp_path / "not" / "mounted")
    with pytest.raises(UserError, match=f"{tmp_path}/a/val is a link to nothing; bring back"):
        splits.of_folder(tmp_path / "a", USUAL)


@pytest.mark.parametrize("name", ["cifar10", "cifar10/train"])
def test_an_archive_does_not_take_the_place_of_folders_that_are_not_mounted(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(tmp_path / "not" / "mounted")
    with pytest.raises(UserError, match=f"{tmp_path}/{name} is a link to nothing; bring back"):
        catalog.find("CIFAR10", tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "link to nothing"])
def test_files_that_are_not_regular_are_refused_and_not_opened(kind, tmp_path, monkeypatch):
    write_pictures(tmp_path / "train", {"a": 2})
    monkeypatch.chdir(tmp_path / "train" / "a")  # the path of a socket has to be short
    if kind == "pipe":
        os.mkfifo("x.png")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("x.png")
    else:
        Path("x.png").symlink_to("/dev/zero" if kind == "device" else "nothing")
    with pytest.raises(UserError, match=r"a/x\.png (is no regular file|cannot be read: No such file)"):
        folder.load(tmp_path, "train")


class Kept:
    """A folder of four pictures, the folder of data sets, and what becomes of the one in the other."""

    def __init__(self, root):
        self.root, self.data_dir = root / "pictures", root / "data"
        self.written = write_pictures(self.root / "train", {"a": 2, "b": 2})
        self.pixels = pixels_of(self.written)

    def load(self):
        return folder.load(self.root, "train", self.data_dir)

    def files(self):
        return sorted(self.data_dir.rglob("*.*"))


def forbid_decoding(monkeypatch):
    """From here on, who decodes a picture fails."""
    monkeypatch.setattr(folder, "decode_one", lambda path, *how, **more: pytest.fail(f"{path} was decoded again"))


@pytest.fixture
def kept(tmp_path):
    return Kept(tmp_path)


def test_decoded_pictures_are_kept_and_read_instead_of_the_files(kept, monkeypatch):
    assert kept.load().whole().images.equal(kept.pixels)
    (file,) = kept.files()
    assert file.parent == kept.data_dir / "decoded"
    forbid_decoding(monkeypatch)
    again = kept.load().whole()
    assert again.images.equal(kept.pixels)
    assert (again.targets.tolist(), again.classes) == ([0, 0, 1, 1], ("a", "b"))
    assert kept.load().take(np.array([3, 0])).images.equal(kept.pixels[[3, 0]])
    assert kept.load().take(np.array([3, 0])).targets.tolist() == [1, 0]


def test_a_part_needs_memory_for_itself_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "PART", 1 << 16)
    pictures = torch.zeros(2000, 32, 32, 3, dtype=torch.uint8)  # 6 MB
    cache.write(tmp_path / "kept", bytes(32), pictures)
    tracemalloc.start()
    try:
        assert cache.read(tmp_path / "kept", bytes(32), tuple(pictures.shape), np.array([3])).equal(pictures[3:4])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_a_cut_off_write_left_of_a_cache_is_removed_after_a_day(tmp_path):
    young, old = (tmp_path / f".auxresnet-{name}.tmp" for name in ("young", "old"))
    for left in (young, old):
        left.write_text("half")
    os.utime(old, (0, young.stat().st_mtime - 2 * cache.DAY))
    cache.write(tmp_path / "kept", bytes(32), torch.zeros(1, 8, 8, 3, dtype=torch.uint8))
    assert (young.exists(), old.exists(), (tmp_path / "kept").exists()) == (True, False, True)


@pytest.mark.parametrize("size", [1, 5 * 32 * 32, 1 << 26])
def test_a_cache_is_read_in_parts_of_any_size(size, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "PART", size)
    pictures = torch.randint(256, (7, 32, 32, 3), dtype=torch.uint8)
    cache.write(tmp_path / "kept", bytes(32), pictures)
    for indices in (range(7), [6, 0, 6], []):
        chosen = np.array(indices, np.int64)
        assert cache.read(tmp_path / "kept", bytes(32), tuple(pictures.shape), chosen).equal(pictures[chosen])


def test_a_part_is_decoded_without_being_kept(kept):
    list(kept.written)[1].write_bytes(b"no picture")
    assert kept.load().take(np.array([3, 0])).images.equal(kept.pixels[[3, 0]])
    assert kept.files() == []


def test_classes_that_were_swapped_are_noticed_though_names_sizes_and_times_are_the_same(tmp_path):
    kept = Kept(tmp_path)
    for path in kept.written:
        Image.fromarray(kept.written[path]).save(path, format="ppm")  # of one size, whatever is on it
        os.utime(path, ns=(1, 1))
    before = kept.load().whole().images
    train = kept.root / "train"
    for name, other in (("a", "c"), ("b", "a"), ("c", "b")):
        (train / name).rename(train / other)
    assert kept.load().whole().images.equal(before[[2, 3, 0, 1]])


@pytest.mark.parametrize("change", ["content", "time", "name", "more", "fewer", "decoding"])
def test_any_change_of_the_folder_is_noticed(change, kept, monkeypatch):
    kept.load().whole()
    (file,) = kept.files()
    before, picture = file.read_bytes(), next(iter(kept.written))
    if change == "content":
        Image.new("RGB", (32, 32), "red").save(picture)
    elif change == "time":
        os.utime(picture, ns=(1, picture.stat().st_mtime_ns + 1))
    elif change == "name":
        picture.rename(picture.with_name("999.png"))
    elif change == "more":
        Image.new("RGB", (32, 32), "red").save(picture.with_name("999.png"))
    elif change == "fewer":
        picture.unlink()
    else:
        monkeypatch.setattr(folder, "DECODING", "of another version")
    pictures = kept.load().whole()
    assert pictures.images.equal(folder.load(kept.root, "train").whole().images)
    assert kept.files() == [file]
    assert file.read_bytes() != before


def test_damaged_files_of_decoded_pictures_are_written_anew(kept):
    kept.load().whole()
    (file,) = kept.files()
    whole, rng = file.read_bytes(), random.Random(0)
    damaged = [b"", whole[:-1], whole + b"\0", b"\0" * len(whole), whole[64:], pickle.dumps(Path), os.urandom(5000)]
    for _ in range(100):
        damaged.append(flipped(whole, rng.randrange(len(whole)), 1 << rng.randrange(8)))
    for content in damaged:
        file.write_bytes(content)
        assert kept.load().whole().images.equal(kept.pixels)
        assert file.read_bytes() == whole
    assert kept.files() == [file]


def test_a_pipe_in_the_place_of_decoded_pictures_is_not_waited_for(kept):
    kept.load().whole()
    (file,) = kept.files()
    file.unlink()
    os.mkfifo(file)
    assert kept.load().whole().images.equal(kept.pixels)
    assert file.is_file()


def test_a_full_disk_keeps_nothing_and_is_no_error(kept, capsys):
    kept.load().whole()
    (file,) = kept.files()
    file.unlink()
    soft, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))  # bytes of a file: the system refuses more
    try:
        assert kept.load().whole().images.equal(kept.pixels)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, most))
    assert capsys.readouterr().err == f"{file.parent}: the decoded pictures are not kept (File too large)\n"
    assert list(file.parent.iterdir()) == []


def test_a_folder_that_cannot_be_written_keeps_nothing_and_is_no_error(kept, capsys):
    kept.data_dir.write_text("a file where the folder would be")
    assert kept.load().whole().images.equal(kept.pixels)
    assert "not kept" in capsys.readouterr().err


def test_nothing_is_written_among_the_users_pictures(kept):
    for data_dir in (kept.root, kept.root / "train" / "a"):
        before = sorted(kept.root.rglob("*"))
        folder.load(kept.root, "train", data_dir).whole()
        assert sorted(kept.root.rglob("*")) == before


def test_training_and_testing_keep_what_they_decode(kept, monkeypatch):
    write_pictures(kept.root / "test", {"a": 1, "b": 1})
    first = splits.for_training(catalog.find(str(kept.root), kept.data_dir), None, 2)
    assert [file.name.split("-")[0] for file in kept.files()] == ["test", "train"]
    forbid_decoding(monkeypatch)
    tests = splits.for_testing(catalog.find(str(kept.root), kept.data_dir))
    again = splits.for_training(catalog.find(str(kept.root), kept.data_dir), None, 2)
    assert again.train.images.equal(first.train.images)
    assert again.evaluated.images.equal(first.evaluated.images)
    assert first.test().images.equal(tests.images)


def test_decoding_that_is_broken_off_is_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(processors, "usable", lambda: 2)

    def work(path):
        Path(path).touch()
        time.sleep(0.01)

    paths = [str(tmp_path / str(number)) for number in range(1000)]
    with pytest.raises(KeyboardInterrupt), closing(decoding.decoded(paths, work)) as results:
        next(results)
        raise KeyboardInterrupt
    begun = len(list(tmp_path.iterdir()))
    assert begun < 200
    time.sleep(0.1)
    assert len(list(tmp_path.iterdir())) == begun


@pytest.mark.parametrize("count", [0, 1, 4, 5, 17, 300])
def test_pictures_come_in_the_order_of_their_files_whoever_decodes_them(count, monkeypatch):
    monkeypatch.setattr(processors, "usable", lambda: 3)
    found = list(decoding.decoded([f"{number}" for number in range(count)], lambda path: (path, os.getpid()), ahead=40))
    assert [path for path, _ in found] == [f"{number}" for number in range(count)]
    others = {process for _, process in found} - {os.getpid()}
    assert len(others) == (3 if count > decoding.FEW else 0)


@pytest.mark.parametrize(("deadly", "count", "where"), [("70", 200, "64 or one of the 15 after it"), ("3", 5, "3")])
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pictures are decoded by the process itself")
def test_a_picture_that_kills_its_decoder_is_an_error_of_one_line(deadly, count, where, monkeypatch):
    monkeypatch.setattr(processors, "usable", lambda: 2)

    def work(path):
        return os.kill(os.getpid(), signal.SIGKILL) if path == deadly else path

    told = rf"a worker died: process \d+ was killed by SIGKILL, at {where}; take out a damaged picture"
    with pytest.raises(UserError, match=told):
        list(decoding.decoded([str(number) for number in range(count)], work))
