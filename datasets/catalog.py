"""The sources of pictures, by name, and `load`, which finds the right one.

A new source is one file with a `load(root, split)` that returns `Pictures`, and one line in `SOURCES`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import cifar, digits, folder, svhn
from datasets.pictures import Pictures, balanced_order
from system.errors import UserError


@dataclass(frozen=True)
class Source:
    """How a data set is read and prepared.

    `mean` and `std` are per channel, on the 0 … 255 scale; None means: measured on the training pictures.
    `pad` is the margin of the random crop in pixels, `flip` whether pictures may be mirrored.
    """

    load: Callable[[Path, str], Pictures]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pad: int = 0
    flip: bool = False


CIFAR = {"mean": (125.3, 123.0, 113.9), "std": (63.0, 62.1, 66.7), "pad": 4, "flip": True}
SOURCES = {
    "CIFAR10": Source(cifar.load10, **CIFAR),
    "CIFAR100": Source(cifar.load100, **{**CIFAR, "mean": (129.3, 124.1, 112.4), "std": (68.2, 65.4, 70.4)}),
    "SVHN": Source(svhn.load, mean=(0.0,) * 3, std=(255.0,) * 3),
    "DIGITS": Source(digits.load, pad=4),
}
FOLDER = Source(folder.load, pad=4, flip=True)


def find(data: str, root: Path, extra: bool = True) -> tuple[Source, Path]:
    """The source of a data set and the folder it reads: a name of `SOURCES`, or the path of a picture folder.

    A folder of pictures `root/<name in lower case>/train` stands in for the archives of the same name, with the
    same preparation. `extra` False leaves out the extra pictures of SVHN.
    """
    if data not in SOURCES:
        return FOLDER, Path(data)
    source = SOURCES[data]
    if data == "SVHN" and not extra:
        source = replace(source, load=svhn.load_without_extra)
    unpacked = root / data.lower()
    if (unpacked / "train").is_dir() or (unpacked / "test").is_dir():
        return replace(source, load=folder.load), unpacked
    return source, root


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from and is judged by.

    `held_out` is judged after every epoch: the validation split if there is one (`validates`), else the test
    pictures. `mean` and `std` are per channel, on the 0 … 255 scale.
    """

    source: Source
    root: Path
    train: Pictures
    held_out: Pictures
    validates: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the targets."""
        return self.train.classes

    @property
    def held_out_name(self) -> str:
        """`validation` or `test`."""
        return "validation" if self.validates else "test"

    def test(self) -> Pictures:
        """The test pictures."""
        return self.source.load(self.root, "test") if self.validates else self.held_out


def for_training(data: str, root: Path, extra: bool, train_size: int | None, val_size: int) -> TrainingData:
    """Load a data set for training; of a seeded, class-balanced order of its training pictures, the first
    `train_size` (None: all that are left) are trained on and the last `val_size` are held out.

    Raises UserError where there are not that many, or where a test class is unknown in training.
    """
    source, root = find(data, root, extra)
    everything = source.load(root, "train")
    count = len(everything)
    train_size = count - val_size if train_size is None else train_size
    if train_size < 1 or train_size + val_size > count:
        raise UserError(
            f"{data} has {count} training pictures: too few for {train_size} to train on and {val_size} to hold out; "
            "lower --trainSize or --valSize"
        )
    train = everything
    if train_size < count:
        order = balanced_order(everything.targets)
        train = everything.take(order[:train_size])
    held_out = everything.take(order[count - val_size :]) if val_size else source.load(root, "test")
    if held_out.classes != train.classes:
        odd = sorted(set(held_out.classes) ^ set(train.classes))
        raise UserError(f"{data}: train and test do not have the same classes; only one of them has {', '.join(odd)}")
    mean, std = (source.mean, source.std) if source.mean else train.statistics()
    return TrainingData(source, root, train, held_out, val_size > 0, mean, std)
