"""Saved models: found, and rebuilt from the files of one or several exits."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import opts
from datasets.sizing import PADDINGS, Sizing
from datasets.transforms import Normalise
from formats import exit_file
from models import exits, names
from models.multiexit import MultiExit
from models.networks import from_state, layout, macs_to_exits
from options import stored
from options.values import ALL
from system.errors import UsageError, UserError
from system.files import real
from system.lock import LOCK_FILE
from system.text import printable

PRETRAINED = Path(__file__).parents[1] / "pretrained"  # the runs that come with this program
LEARNT = "learnt"  # the exits that answer together, and by a policy: one that did not learn answers by chance
UNTESTED = "holds no exit-<position>.safetensors: it is no folder of a run, or its training has not tested an epoch yet"
PAUSES = (0.2, 0.5, 1.0, 2.0, None)  # seconds between attempts to read files that a run is writing


@dataclass(frozen=True)
class SavedModel:
    """The part of a network that leads to the exits of `files`; `header` is that of the deepest of them."""

    network: MultiExit
    configuration: names.Configuration
    header: dict[str, Any]
    files: dict[int, Path]  # by position, shallow to deep

    @property
    def folder(self) -> Path:
        """The folder of its run."""
        return next(iter(self.files.values())).parent

    @property
    def options(self) -> dict[str, Any]:
        """The options of its run, as far as this program knows them; None stands for a default."""
        return opts.of_header(self.header)

    @property
    def svhn_extra(self) -> bool:
        """Whether the training pictures of SVHN have the extra ones among them."""
        return self.options.get("svhnExtra") is not False

    @property
    def padding(self) -> str:
        """What random crops saw beyond the edge. Held-out pictures are decoded with that margin, to have the same
        pixels as in training."""
        return self.options.get("padding") or PADDINGS[0]

    @property
    def normalise(self) -> Normalise:
        """What turns its pictures into its input."""
        return Normalise(self.header["mean"], self.header["std"])

    @property
    def sizing(self) -> Sizing:
        """How its pictures are brought to size."""
        return Sizing.of(self.header)

    @property
    def macs_to_exits(self) -> list[int]:
        """The multiply-adds for a picture that leaves at each exit, as `networks.macs_to_exits` counts them."""
        return macs_to_exits(self.configuration, self.network, self.sizing.side)


def find(model: str, folder: str | None, wanted: int | str | None, save: str) -> SavedModel:
    """The model of the exits that `--exit` wants (see `choose`), from the run that `names.folder_called` tells: at the
    path `model`, or in the folder of that name under `save` or among those that come with this program."""
    bare, named = Path(model), Path(save, model)
    if folder is None and bare.name == model and bare != named and any(names.exit_files(named)):
        folder = model  # that in the current folder, which has the same name, is not meant
    return load(choose(find_files(model, folder, roots(save)), wanted))


def roots(save: str) -> list[Path]:
    """The folders that hold the folders of runs, in the order in which they are searched."""
    return [Path(save), PRETRAINED]


def runs(roots: Sequence[Path]) -> set[Path]:
    """The folders under the roots that have exit files in them."""
    return {folder for root in roots for folder in root.glob("*/") if any(names.exit_files(folder))}


def find_files(model: str, folder: str | None, roots: Sequence[Path]) -> dict[int, Path]:
    """The exit files, by position, that `model` stands for: the path of one or of a run, or, with `folder` given, those
    of the first of `roots` that holds a run in a folder of that name.

    Raises UserError that lists the runs that were found, or names a link that leads out of the roots.
    """
    if folder is None:
        path = Path(model)
        if not path.is_dir():
            return {exit_file.position_of(path): path}
        if files := exit_file.files_in(path):
            return files
        if (path / "card.json").exists():
            raise UserError(
                f"{path} is a bundle of export.py, which is run by itself: python {path / 'run.py'} PICTURE"
            )
        raise UserError(f"{path} {UNTESTED}")
    for root in roots:
        run = root / folder
        if files := exit_file.files_in(run):
            outside = [file for file in files.values() if not real(file).is_relative_to(real(root))]
            if outside:
                raise UserError(f"{outside[0]} is a link that leads out of {root}/; give its own path to test it")
            return files
        if (run / stored.FILE).exists():
            raise UserError(f"{run} {UNTESTED}")
    found = sorted(map(str, runs(roots)))
    places = " or ".join(f"{root}/" for root in roots)
    raise UserError(f"no exit files of {folder} in {places}; runs found there: {', '.join(found) or 'none'}")


def choose(files: dict[int, Path], wanted: int | str | None) -> dict[int, Path]:
    """The files to read: `all` of them, those of the exits that `learnt`, that of one position, or (None) that of the
    last exit that learnt."""
    if wanted == ALL:
        return files
    if wanted == LEARNT:
        return _learnt(files)
    position = max(_learnt(files)) if wanted is None else wanted
    if position not in files:
        file = next(iter(files.values()))
        where = file if len(files) == 1 else f"{file.parent}/"
        raise UserError(f"no exit {position} in {where}; there are: {', '.join(map(str, sorted(files)))}")
    return {position: files[position]}


def _learnt(files: dict[int, Path]) -> dict[int, Path]:
    """The files of the exits whose losses had a weight; all of them where that is not known, or true of none."""
    path = files[max(files)]
    header = exit_file.read_header(path)
    positions = _configuration(path, header).exits
    weights = opts.of_header(header).get("exitWeights") or "sum"
    try:
        learnt = exits.learning(weights, positions)
    except UsageError:  # weights of other exits: nothing is known
        learnt = positions
    return {position: path for position, path in files.items() if position in learnt} or files


def load(files: dict[int, Path]) -> SavedModel:
    """Rebuild the network from exit files of one run; UserError, naming the file, where they do not fit together.

    A run that is at work writes one file after another: where they do not fit, they may do so in a moment.
    """
    for pause in PAUSES:
        try:
            return _load(dict(sorted(files.items())))
        except UserError:
            if pause is None or not any((path.parent / LOCK_FILE).exists() for path in files.values()):
                raise
        time.sleep(pause)


def _load(files: dict[int, Path]) -> SavedModel:
    """The same from the files as they are now, shallow to deep."""
    weights: dict[str, Tensor] = {}
    for position, path in files.items():
        header = exit_file.read_header(path)
        if header["position"] != position:
            raise UserError(f"{path} holds exit {header['position']}; name it {names.exit_name(header['position'])}")
        configuration = _configuration(path, header)
        tensors = exit_file.read_weights(path, layout(configuration, len(header["classes"]), position))
        if exit_file.read_header(path) != header:
            raise UserError(f"{path} was replaced while it was read; try again")
        if any(name in weights and not torch.equal(weights[name], tensor) for name, tensor in tensors.items()):
            raise UserError(f"{path} is of another run or epoch than the exits before it; test it alone")
        weights |= tensors
    try:
        network = from_state(configuration, len(header["classes"]), list(files), weights)
    except RuntimeError as error:
        raise UserError(f"{path} is of another network than the exits before it; test it alone") from error
    return SavedModel(network, configuration, header, files)


def _configuration(path: Path, header: dict[str, Any]) -> names.Configuration:
    """The network that a header describes; UserError where it makes no sense."""
    try:
        configuration = names.from_fields(header["network"])
    except UserError as error:
        raise UserError(f"{path}: the header describes no network: {error}") from error
    if header["name"] != configuration.name or header["position"] not in configuration.exits:
        found = f"{printable(header['name'])} with an exit {header['position']}"
        raise UserError(f"{path}: the header describes {configuration.name}, and calls it {found}")
    return configuration


def halved(model: SavedModel) -> tuple[bytes, SavedModel]:
    """The model of one exit as the content of an exit file with weights in 16 bits, and the model that this holds."""
    [position] = model.files
    whole = model.network.exit_state(position)
    narrow = exit_file.narrowed(whole)
    rounded = {name: tensor.to(whole[name].dtype) for name, tensor in narrow.items()}
    network = from_state(model.configuration, len(model.header["classes"]), [position], rounded)
    return exit_file.content(narrow, model.header), replace(model, network=network)


def standalone(model: SavedModel, *positions: int) -> SavedModel:
    """The model of one or some of the exits by themselves, shallow to deep. Its header stays that of `model`: position
    and error in it are not those of these exits."""
    if positions == tuple(model.files):  # it is that already
        return model
    state = {name: tensor for position in positions for name, tensor in model.network.exit_state(position).items()}
    network = from_state(model.configuration, len(model.header["classes"]), positions, state)
    return replace(model, network=network, files={position: model.files[position] for position in positions})
