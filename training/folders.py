"""The folder of a run: which one it is, and that no other run is at work in it."""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import checkpoints
import opts
from datasets import catalog
from datasets.sizing import Sizing
from models import names
from models.names import Configuration
from options import rules, stored
from system import world
from system.errors import UserError
from system.files import real
from system.lock import check_free, locked


def settle(options: argparse.Namespace, configuration: Configuration) -> tuple[argparse.Namespace, Path]:
    """The options, in which `--resume auto` is decided by whether the first process finds a run on its disk; and the
    folder of the run. Raises UserError where its path is not valid UTF-8."""
    _check_utf8(Path(options.save))
    auto = options.resume == opts.AUTO_RESUME
    if auto:
        options = argparse.Namespace(**{**vars(options), "resume": ""})
    folder = Path(world.broadcast(lambda: str(_folder(options, configuration))))
    if auto and not world.broadcast(lambda: checkpoints.holds_run(folder)):
        options.resume = None
        rules.new_run(options)
    _check_utf8(folder)  # the name of the folder of --data is part of it
    return options, folder


def _check_utf8(path: Path) -> None:
    """Raise UserError where a path is not valid UTF-8."""
    try:
        valid = str(path) == os.fsencode(path).decode(errors="replace")
    except UnicodeError:  # the locale has another encoding, or no encoding has a lone surrogate
        valid = False
    if not valid:
        raise UserError(
            f"{path} is not valid UTF-8, which the names of exit files have to be; give another --save, or rename the "
            "folder of --data"
        )


def _folder(options: argparse.Namespace, configuration: Configuration) -> Path:
    """The folder of a run: the one to be resumed, else that of its data set and network under `--save`.

    Older versions wrote runs of networks that differ from the one of their name into the folder of that name, and runs
    of a folder of pictures that has the name of a data set into that of the data set; such a run is found there when it
    is to be resumed.
    """
    if options.resume:
        return Path(options.resume)
    label = catalog.label(options.data)
    folder = Path(options.save, names.run_folder(label, configuration))
    if options.resume is None or checkpoints.holds_run(folder):
        return folder
    formerly = (
        names.run_folder(label, names.parse(configuration.name)),
        names.run_folder(real(Path(options.data)).name, configuration),
    )
    older = (Path(options.save, name) for name in formerly)
    return next((o for o in older if checkpoints.holds_run(o) and _may_be_of(o, label, configuration)), folder)


def _may_be_of(folder: Path, label: str, configuration: Configuration) -> bool:
    """Whether a run recorded this data set and this network, or nothing that can be read."""
    try:
        recorded = stored.recorded(folder, opts.MAIN)
        return (catalog.label(recorded.get("data")), names.of_options(recorded)) == (label, configuration)
    except (TypeError, ValueError):
        return True


@contextmanager
def kept_for_this_run(folder: Path, options: argparse.Namespace) -> Iterator[Callable[[], None]]:
    """The folder of a run, checked and locked by the first process; the others never look into it. Yields a check that
    raises UserError if the folder has been moved."""
    if not world.is_first():
        yield lambda: None
        return
    resumed = options.resume is not None
    if not resumed:
        _check_apart(folder, options)
    try:
        checkpoints.check_folder(folder, resumed)
    except UserError:
        check_free(folder)  # a run that is at work there is not to be renamed
        raise
    with locked(folder) as check_held:
        checkpoints.check_folder(folder, resumed)  # again, now that it is this run's alone
        yield check_held


def _check_apart(folder: Path, options: argparse.Namespace) -> None:
    """Raise UserError where a run would be put among its own pictures."""
    found = catalog.find(options.data, Path(options.dataDir), sizing=Sizing(options.inputSize))
    for split in ("train", *catalog.TESTED_ON) if found.in_folders else ():
        pictures = found.folder / split
        if real(folder).is_relative_to(real(pictures)):
            raise UserError(f"{folder} would be taken for pictures of {pictures}; give another --save")
