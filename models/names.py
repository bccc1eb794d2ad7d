"""Network names and what they stand for: `AuxResNet-26-2/10-dropout` <-> `Configuration`. Plain Python, no torch."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import exits as exit_rules
from system.errors import UsageError
from system.files import is_folder
from system.text import printable

MAX_WIDEN = 100
EXIT_SUFFIX = ".safetensors"
EXIT_GLOB = f"exit-*{EXIT_SUFFIX}"  # what the exit files in a run's folder are called, by `exit_name`
EXIT_NAME = re.compile(r"exit-([0-9]+)\.safetensors", re.ASCII)  # the glob finds others, too; this one decides
NETWORK = {  # the options that describe one, as `configure` takes them, and the field of `Configuration` that follows
    "depth": "depth",
    "nOutputs": "exits",
    "exits": "exits",
    "widen": "widen",
    "dropout": "dropout",
    "shortcutType": "shortcut",
}
DROPOUT = 0.3  # the rate that `-dropout` in a name stands for (Wide Residual Networks, arXiv 1605.07146, section 2.4)
FORM = "AuxResNet-<depth>-<outputs>[/<widen factor>][-dropout] or ResNet-<depth>[/<widen factor>][-dropout]"
_NAME = re.compile(
    r"(?:AuxResNet-(?P<aux>[0-9]{1,5})-(?P<outputs>[0-9]{1,5})|ResNet-(?P<plain>[0-9]{1,5}))"
    r"(?:/(?P<widen>[0-9]{1,5}))?(?P<dropout>-dropout)?"
)
LIKE_A_NAME = re.compile(r"(?:(?P<data>[^/]+)-)?(?:Aux)?ResNet-[^/]+(?:/[0-9]+)?[^/]*")
_FOLDER = re.compile(  # any name, and what `run_folder` appends to it: a dropout rate, exits, shortcuts
    r"(?P<name>.*?)"
    r"(?P<rest>(?:-(?:0\.[0-9]+|[0-9.]+e-[0-9]+))?(?:-exits(?:-[0-9]{1,5})+)?(?:-shortcut-[AB])?)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Configuration:
    """Everything that fixes a network but its number of classes. `configure` makes a checked one."""

    depth: int
    exits: tuple[int, ...]  # positions, shallow to deep; the last is the depth
    widen: int  # stage widths are 16k, 32k, 64k
    dropout: float  # rate before the last convolution of each block
    shortcut: str  # "A": strided identity padded with zero channels; "B": 1x1 convolution

    @property
    def name(self) -> str:
        """The published form, such as `AuxResNet-26-2/10`; dropout shows without its rate, exits by their number."""
        plain = len(self.exits) == 1
        base = f"ResNet-{self.depth}" if plain else f"AuxResNet-{self.depth}-{len(self.exits)}"
        widen = f"/{self.widen}" if self.widen > 1 else ""
        return base + widen + ("-dropout" if self.dropout else "")


def configure(
    depth: int,
    outputs: int,
    exits: Sequence[int] | None = None,
    widen: int = 1,
    dropout: float = 0.0,
    shortcut: str | None = None,
) -> Configuration:
    """A checked configuration; `shortcut` defaults to A at widen factor 1 and to B above.

    Raises UsageError for a depth, exits or widen factor that no network has.
    """
    if not 1 <= widen <= MAX_WIDEN:
        raise UsageError(f"widen factor {widen} is not between 1 and {MAX_WIDEN}")
    positions = exit_rules.check(depth, exits) if exits else exit_rules.spread(depth, outputs)
    if len(positions) != outputs:
        raise UsageError(f"nOutputs {outputs} contradicts the {len(positions)} exits {', '.join(map(str, positions))}")
    return Configuration(depth, positions, widen, dropout, shortcut or ("A" if widen == 1 else "B"))


def of_options(options: Mapping[str, Any]) -> Configuration:
    """The network that the options of a run describe, checked as by `configure`. Raises TypeError, too, where they are
    from a file and of other kinds."""
    return configure(*(options[name] for name in NETWORK))


def to_options(configuration: Configuration) -> dict[str, Any]:
    """The options that describe a network, none of them left open."""
    fields = {option: getattr(configuration, field) for option, field in NETWORK.items()}
    return {**fields, "nOutputs": len(configuration.exits)}


def from_fields(fields: Mapping[str, Any]) -> Configuration:
    """The configuration whose fields these are, as read from a file, checked; raises UsageError where there is none."""
    kinds = {"depth": (int,), "exits": (list,), "widen": (int,), "dropout": (int, float), "shortcut": (str,)}
    wrong = [name for name, kind in kinds.items() if type(fields.get(name)) not in kind]
    if wrong or fields.keys() != kinds.keys() or not all(type(position) is int for position in fields["exits"]):
        raise UsageError(f"a network is described by {', '.join(kinds)}, not by {str(dict(fields))[:200]}")
    if not 0 <= fields["dropout"] < 1 or fields["shortcut"] not in ("A", "B"):
        raise UsageError(f"dropout {fields['dropout']} or shortcut {fields['shortcut'][:20]!r} is not one of a network")
    return configure(outputs=len(fields["exits"]), **fields)


def parse(name: str) -> Configuration:
    """The configuration that a name stands for, with the default exits; `parse(name).name == name`.

    Raises UsageError where the name is not of the published form, or another name says the same in the usual way.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise UsageError(f"{name!r} is no network name; names are {FORM}")
    configuration = configure(
        depth=int(match["aux"] or match["plain"]),
        outputs=int(match["outputs"] or 1),
        widen=int(match["widen"] or 1),
        dropout=DROPOUT if match["dropout"] else 0.0,
    )
    if configuration.name != name:
        raise UsageError(f"{name!r} is written {configuration.name}")
    return configuration


def run_folder(dataset: str, configuration: Configuration) -> str:
    """The folder of a run: `CIFAR10`, `AuxResNet-26-2/10` -> `CIFAR10-AuxResNet-26-2-w10`.

    What the name of the network leaves open, and is not as usual, is appended: the dropout rate, the exits, the
    shortcuts, such as `CIFAR10-AuxResNet-56-2-dropout-0.1-exits-15-56`.
    """
    usual = parse(configuration.name)
    parts = [dataset, configuration.name.replace("/", "-w")]
    if configuration.dropout != usual.dropout:
        parts.append(f"{configuration.dropout!r}")
    if configuration.exits != usual.exits:
        parts += ["exits", *map(str, configuration.exits)]
    if configuration.shortcut != usual.shortcut:
        parts += ["shortcut", configuration.shortcut]
    return "-".join(parts)


def exit_name(position: int) -> str:
    """What the file of an exit is called."""
    return f"exit-{position}{EXIT_SUFFIX}"


def exit_files(folder: Path) -> Iterator[Path]:
    """The exit files in a folder, by their names."""
    return (path for path in folder.glob(EXIT_GLOB) if EXIT_NAME.fullmatch(path.name))


def folder_called(dataset: str, model: str, files: str = EXIT_SUFFIX) -> str | None:
    """The folder of the run that a user means by `model`: a network's name, or what `run_folder` makes of it, with the
    data set in front or without.

    None where it is a path, that of an exit file or of a folder; a folder called like a network counts as one only with
    exit files in it. Raises UsageError where it is neither; `files` are the endings that it then says files may have.
    """
    path = Path(model)
    if path.suffix == EXIT_SUFFIX or (is_folder(model) and any(exit_files(path))):
        return None
    try:
        return _folder_of(dataset, model)
    except UsageError as error:
        if model and is_folder(model):
            return None
        like = LIKE_A_NAME.fullmatch(model)
        if not like:
            raise UsageError(
                f"{printable(model, 80)!r} is neither a network's name nor the path of a run's folder or of a {files} "
                f"file; names are {FORM}"
            ) from error
        if like["data"] in (None, dataset):
            raise
        _folder_of(like["data"], model)  # raises where it is no network's name
        raise UsageError(
            f"{model} is a network of {like['data']}, not of {dataset}; give the data set that it is of, or, to take "
            "other pictures of the same classes, the path of the run's folder"
        ) from error


def _folder_of(dataset: str, model: str) -> str:
    """The folder of the run of a network's name, with the data set in front or without; UsageError for other texts."""
    bare = re.sub(f"^{re.escape(dataset)}-", "", model, flags=re.IGNORECASE)  # a data set may be called ResNet
    name, rest = _FOLDER.fullmatch(bare if LIKE_A_NAME.fullmatch(bare) else model).group("name", "rest")
    name = re.sub("-w([0-9]+)", r"/\1", name)
    return f"{dataset}-{parse(name).name.replace('/', '-w')}{rest}"
