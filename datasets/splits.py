"""The pictures that a run trains on, holds out and is tested on, chosen from a data set."""

from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np

from datasets.catalog import FOLDER, Found, folder_is_there
from datasets.pictures import Pictures, Split, balanced_order
from datasets.sizing import Sizing
from system import memory, world
from system.errors import UserError
from system.files import real
from system.text import some_of


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from and is tested on.

    `evaluated` is tested on after every epoch: the validation pictures if there are any (`validates`), else the test
    pictures. `test_split` is None for a data set without test pictures, and in processes that need not read them; it
    is read once before the training, so that what is missing or damaged is named in time. `mean` and `std` are per
    channel, on the 0 … 255 scale; `pad` is the margin of the random crop in pixels, `flip` whether pictures may be
    mirrored.
    """

    train: Pictures
    evaluated: Pictures
    validates: bool
    test_split: Split | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int
    flip: bool

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the targets."""
        return self.train.classes

    @property
    def evaluated_name(self) -> str:
        """`validation` or `test`."""
        return "validation" if self.validates else "test"

    def test(self) -> Pictures | None:
        """The test pictures beside a validation split; None if there are none. Raises UserError where one cannot be
        read."""
        read = world.first_of_host(lambda: self.test_split and vars(self.test_split.whole()))
        everywhere = world.broadcast_on_host(read)
        return everywhere and Pictures(**everywhere)


def for_training(found: Found, train_size: int | None, val_size: int) -> TrainingData:
    """Load a data set for training; of a seeded, class-balanced order of its training pictures, the first
    `train_size` (None: all that are left) are trained on and the last `val_size` are held out.

    Raises UserError where there are not that many pictures, none to test on, one class only, where a class is not both
    in training and in test, or where the pictures take more memory than there is.
    """
    train_split, test_split = _load_training(found), _load(found, "test")
    if test_split is None and not val_size:
        raise UserError(
            f"{found.folder} has neither test/ nor val/; add one, or hold out training pictures with --valSize"
        )
    _check_classes(found.data, train_split, test_split)
    train_size = _check_sizes(train_split, found.data, train_size, val_size)
    _announce_memory(found, train_split, train_size, val_size, test_split)
    train, validation = _divide(train_split, train_size, val_size)
    tested = test_split.whole() if test_split else None  # read in any case, so that a damaged one is named now
    evaluated, validates = (tested, False) if validation is None else (validation, True)
    source = found.source
    mean, std = (source.mean, source.std) if source.mean else train.statistics()
    return TrainingData(train, evaluated, validates, test_split, mean=mean, std=std, pad=source.pad, flip=source.flip)


def classes_and_normalisation(found: Found) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    """What a network has to know of a data set before it is trained: the names of the classes, the mean and the
    standard deviation of each channel, on the 0 … 255 scale. Those of a folder have to be measured.

    Raises UserError where there are no training pictures.
    """
    split, source = _load_training(found), found.source
    mean, std = (source.mean, source.std) if source.mean else _read(found, split).statistics()
    return split.classes, mean, std


def shared(data: TrainingData | None) -> TrainingData:
    """Give the data, which only the first process of this host has, to all its processes; the pictures are in memory
    once. Test pictures that are still to be read are left to the first."""
    told = world.broadcast_on_host(_plain(data) if data else None)
    whole = {name: Pictures(**told[name]) for name in ("train", "evaluated")}
    test_split = data.test_split if data and data.validates else None
    return TrainingData(**{**told, **whole, "test_split": test_split})


def _plain(data: TrainingData) -> dict[str, Any]:
    """All but what is still to be read, as processes can tell each other."""
    return {**vars(data), "train": vars(data.train), "evaluated": vars(data.evaluated), "test_split": None}


def for_testing(found: Found, count: int | None = None) -> Pictures:
    """The test pictures of a data set, as `for_training` takes them; there need be none to train on. With a `count`,
    only so many are read, of all classes.

    Raises UserError where there are no test pictures.
    """
    split = _load(found, "test")
    if split is None:
        folder = found.folder
        raise UserError(f"{folder} has neither test/ nor val/; testing needs {folder / 'test'}/<class>/*")
    return _read(found, split, None if count is None else balanced_order(split.targets)[:count])


def held_out(found: Found, val_size: int) -> Pictures:
    """The `val_size` training pictures that `for_training` holds out, to the bit; no others are read.

    Raises UserError where there are no training pictures, or not that many.
    """
    split = _load_training(found)
    count = len(split.targets)
    if val_size >= count:
        raise UserError(
            f"{found.data} has {count:,} training pictures, and the run held {val_size:,} out: they are others; check "
            "--dataDir, or give --heldOut"
        )
    return _read(found, split, balanced_order(split.targets)[-val_size:]).without_margin()


def some_for_training(found: Found, count: int) -> Pictures:
    """Of the order of the training pictures in which `for_training` takes them, the first `count`, or as many as there
    are; no others are read.

    Raises UserError where there are no training pictures.
    """
    split = _load_training(found)
    return _read(found, split, balanced_order(split.targets)[:count])


def of_folder(folder: Path, sizing: Sizing) -> Pictures:
    """All pictures of a folder with val/<class>/* or else <class>/*. Raises UserError where there are none."""
    place = real(folder)
    root, split = (place, "val") if folder_is_there(place / "val") else (place.parent, place.name)
    pictures = resolve_name(FOLDER.loader)(root, split, sizing=sizing)
    return _read(Found(str(folder), folder, FOLDER, sizing), pictures)


def _load(found: Found, split: str) -> Split | None:
    return resolve_name(found.source.loader)(found.folder, split, **found.source.arguments)


def _load_training(found: Found) -> Split:
    split = _load(found, "train")
    if split is None:
        folder = found.folder
        raise UserError(f"{folder} has no train/; the training pictures are to be in {folder / 'train'}/<class>/*")
    return split


def _check_classes(data: str, train: Split, test: Split | None) -> None:
    """Raise UserError where train and test do not have the same classes, or there is nothing to tell apart."""
    if test is not None and test.classes != train.classes:
        sides = ("train", train, test), ("test", test, train)
        odd = {name: sorted({*own.classes} - {*other.classes}) for name, own, other in sides}
        told = "; ".join(f"only {name} has {some_of(classes)}" for name, classes in odd.items() if classes)
        raise UserError(f"{data}: train and test do not have the same classes: {told}")
    if len(train.classes) == 1:
        raise UserError(f"all pictures of {data} are of one class, {train.classes[0]}; it takes two to tell apart")


def _check_sizes(split: Split, data: str, train_size: int | None, val_size: int) -> int:
    """How many pictures to train on. Raises UserError where there are not that many, besides those to hold out."""
    count = len(split.targets)
    if val_size >= count:
        raise UserError(
            f"{data} has {count} training pictures, of which {val_size} cannot be held out; lower --valSize"
        )
    train_size = count - val_size if train_size is None else train_size
    if train_size + val_size > count:
        raise UserError(
            f"{data} has {count} training pictures: too few for {train_size} to train on and {val_size} to hold out; "
            "lower --trainSize or --valSize"
        )
    return train_size


def _announce_memory(found: Found, train: Split, train_size: int, val_size: int, test: Split | None) -> None:
    """Say how much memory the pictures are going to take, if that is much; UserError where it is more than there is."""
    learnt = (train_size + val_size) * train.picture_bytes
    tested = len(test.targets) * test.picture_bytes if test else 0
    divided = learnt if val_size and train_size + val_size == len(train.targets) else 0  # all are read, then copied
    count, size = train_size + val_size + (len(test.targets) if test else 0), learnt + max(tested, divided)
    # While one process gives pictures to the others, these are there twice; with --valSize the test pictures are given
    # at the end, when the others are there once.
    if world.host_size() > 1:
        size = max(size, 2 * learnt, learnt + 2 * tested) if val_size else 2 * (learnt + tested)
    memory.announce(_counted(found, count), size, "lower --inputSize, or train on fewer with --trainSize")


def _counted(found: Found, count: int) -> str:
    return f"{found.folder}: {count:,} pictures of {found.sizing.side}×{found.sizing.side}"


def _read(found: Found, split: Split, indices: np.ndarray | None = None) -> Pictures:
    """The pictures of a split, all of them or some, for anything but training; announced if they take much memory."""
    count = len(split.targets) if indices is None else len(indices)
    advice = "end other programs, or give fewer pictures"
    memory.announce(_counted(found, count), count * split.picture_bytes, advice)
    return split.whole() if indices is None else split.take(indices)


def _divide(split: Split, train_size: int, val_size: int) -> tuple[Pictures, Pictures | None]:
    """The pictures to train on and those to hold out; only these are read."""
    count = len(split.targets)
    if train_size + val_size == count:
        split = split.whole()
    if train_size == count:
        return split, None
    order = balanced_order(split.targets)
    validation = split.take(order[count - val_size :]).without_margin() if val_size else None
    return split.take(order[:train_size]), validation
