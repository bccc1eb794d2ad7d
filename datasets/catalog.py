"""The data sets by name, one row each, and `find`, which says where a data set is. Free of PyTorch.

A new data set is one file with a loader and one row in `SOURCES`. A loader is a function `load(root, split)`, where
`split` is `train` or `test`, that returns a `datasets.pictures.Split`, or None if the data set has no such split.
"""

import errno
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets.sizing import SIDE, USUAL, Margin, Sizing
from system.errors import UserError
from system.files import real


@dataclass(frozen=True)
class Source:
    """How a data set is read and prepared.

    `loader` names its loader, `module:function`; `arguments` is what the loader is given besides folder and split.
    `mean` and `std` are per channel, on the 0 … 255 scale; None means: measured on the training pictures.
    `pad` is the margin of the random crop in pixels, for a folder in those of a picture of the usual size; `flip` says
    whether pictures may be mirrored, `terms` where they are from, and under which licence.
    """

    loader: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pad: int = 0
    flip: bool = False
    terms: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)


CIFAR = {
    "pad": 4,
    "flip": True,
    "terms": "CIFAR by Krizhevsky, Nair and Hinton. Its authors state no licence; cite Krizhevsky, *Learning Multiple "
    "Layers of Features from Tiny Images*, 2009.",
}
SVHN_TERMS = (
    "The Street View House Numbers, for non-commercial use only; cite Netzer et al., *Reading Digits in Natural Images "
    "with Unsupervised Feature Learning*, 2011."
)
DIGITS_TERMS = (
    "Optical Recognition of Handwritten Digits by Alpaydin and Kaynak, UCI Machine Learning Repository, 1998, under "
    "CC BY 4.0."
)
FOLDER_TERMS = "A folder of pictures; their licence is for whoever trained on them to state."
SOURCES = {
    "CIFAR10": Source("datasets.cifar:load10", (125.3, 123.0, 113.9), (63.0, 62.1, 66.7), **CIFAR),
    "CIFAR100": Source("datasets.cifar:load100", (129.3, 124.1, 112.4), (68.2, 65.4, 70.4), **CIFAR),
    "SVHN": Source("datasets.svhn:load", (0.0,) * 3, (255.0,) * 3, terms=SVHN_TERMS),
    "DIGITS": Source("datasets.digits:load", pad=4, terms=DIGITS_TERMS),
}
FOLDER = Source("datasets.folder:load", pad=4, flip=True, terms=FOLDER_TERMS)
NAMES = tuple(SOURCES)
TESTED_ON = ("test", "val")  # in a folder of pictures; the first of them that is there
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # of a picture's name in a folder


def row(data: str) -> Source:
    """How the data set of a name is read; any name but those of `NAMES` is that of a folder of pictures."""
    return SOURCES.get(data, FOLDER)


def spelled(data: str) -> str:
    """The name of a data set, given in any case, in its own spelling; any other text as it is."""
    return data.upper() if data.upper() in NAMES else data


def label(data: str) -> str:
    """What a data set is called in folders and tables: its name, or the name of its folder, which is not taken for a
    data set if it has the name of one."""
    if data in NAMES:
        return data
    folder = real(Path(data)).name
    return f"{folder}-folder" if folder in NAMES else folder


def folder_is_there(path: Path) -> bool:
    """Whether there is a folder of pictures. Raises UserError for a link to nothing: other pictures would take the
    place of those that it led to, or these would be left out, and nobody would notice."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        if path.is_symlink():
            text = f"{path} is a link to nothing; bring back what it leads to, or remove the link"
            raise UserError(text) from error
        return False


@dataclass(frozen=True)
class Found:
    """A data set that is to be read: what it is called, from which folder, how, and at what size."""

    data: str
    folder: Path
    source: Source
    sizing: Sizing

    @property
    def in_folders(self) -> bool:
        """Whether its pictures are files in folders, one for each class, and not those of an archive."""
        return self.source.loader == FOLDER.loader


def find(data: str, root: Path, extra: bool = True, sizing: Sizing = USUAL, padding: str | None = None) -> Found:
    """The data set of a name of `NAMES`, in the folder `root` of data sets, or the one at the path of a picture folder.

    A folder of pictures `root/<name in lower case>/{train,test,val}` stands in for the archives of the same name, with
    the same preparation. `extra` False leaves out the extra pictures of SVHN. `sizing` is for folders. `padding` is
    for training pictures of a folder of the user's own that are cropped to size: what the margin around them shows, in
    which random crops move; None: they have no margin.

    Raises UserError where an archive does not have pictures of that size.
    """
    arguments = {"data_dir": root, "sizing": sizing}
    if data not in SOURCES:
        pad = sizing.scaled(FOLDER.pad)
        if padding and sizing.fit == "crop":
            arguments["margin"] = Margin(pad, padding)
        return Found(data, Path(data), replace(FOLDER, pad=pad, arguments=arguments), sizing)
    source = SOURCES[data]
    unpacked = root / data.lower()
    if folder_is_there(unpacked) and any(folder_is_there(unpacked / split) for split in ("train", *TESTED_ON)):
        return Found(data, unpacked, replace(source, loader=FOLDER.loader, arguments=arguments), sizing)
    if sizing.side != SIDE:
        side = sizing.side
        raise UserError(f"the pictures of {data} are {SIDE}×{SIDE}, not {side}×{side}; give a folder of pictures")
    if data == "SVHN" and not extra:
        source = replace(source, arguments={"extra": False})
    return Found(data, root, source, sizing)
