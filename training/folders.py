"""The folder of a run: which one it is, and that no other run is at work in it."""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import checkpoints
import opts
from models import names
from models.names import Configuration
from options import stored
from system import world
from system.errors import UserError
from system.lock import locked


def settle(options: argparse.Namespace, configuration: Configuration) -> tuple[argparse.Namespace, Path]:
    """The options with what `--resume auto` comes to, on the disk of the first process, and the folder of the run.
    Raises UserError where its path is no text."""
    if options.resume == opts.AUTO_RESUME:
        options = argparse.Namespace(**{**vars(options), "resume": ""})
        if not world.share(lambda: checkpoints.holds_run(_folder(options, configuration))):
            options.resume = None
    folder = _folder(options, configuration)
    if str(folder) != os.fsencode(folder).decode(errors="replace"):
        raise UserError(
            f"{folder} is not valid UTF-8, which the names of exit files have to be; give another --save, or rename "
            "the folder of --data"
        )
    return options, folder


def _folder(options: argparse.Namespace, configuration: Configuration) -> Path:
    """The folder of a run: the one to be resumed, else that of its data set and network under `--save`.

    Older versions wrote runs of networks that differ from the one of their name into the folder of that name; such a
    run is found there when it is to be resumed.
    """
    if options.resume:
        return Path(options.resume)
    label = opts.label(options.data)
    folder = Path(options.save, names.run_folder(label, configuration))
    older = Path(options.save, names.run_folder(label, names.parse(configuration.name)))
    found = options.resume is not None and not checkpoints.holds_run(folder) and checkpoints.holds_run(older)
    return older if found and _may_be_of(older, configuration) else folder


def _may_be_of(folder: Path, configuration: Configuration) -> bool:
    """Whether a run recorded this network, or nothing that can be read."""
    try:
        return names.of_options(stored.recorded(folder, opts.MAIN)) == configuration
    except (TypeError, ValueError):
        return True


@contextmanager
def kept_for_this_run(folder: Path, options: argparse.Namespace, warn: Callable[[str], None]) -> Iterator[None]:
    """The folder of a run, checked and locked by the first process; the others never look into it. What is odd and no
    reason to stop, `warn` is told."""
    if not world.is_first():
        yield
        return
    checkpoints.check_folder(folder, options.resume is not None)
    with locked(folder, warn):
        checkpoints.check_folder(folder, options.resume is not None)  # again, now that it is this run's alone
        yield
