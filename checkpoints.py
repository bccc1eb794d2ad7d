"""The folder of a run: one file per exit, the training state, the options, and what is made of them.

Every file is written beside its place, brought to the disk, and moved there in one step, so that a reader sees the old
one or the new one, whole. The training state is written before the exits of its epoch: where a crash kept these from
following, they are made of it when the run goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from formats import exit_file, log_file, state_file
from models.multiexit import MultiExit
from reports import page
from system import world
from system.errors import UserError
from system.files import write

CURVES = "curves.png"


def holds_run(folder: Path) -> bool:
    """Whether a folder has anything of a run in it that must not be lost."""
    others = (folder / name for name in (log_file.FILE, page.FILE, CURVES))
    return state_file.is_in(folder) or bool(exit_file.files_in(folder)) or any(path.is_file() for path in others)


def check_folder(folder: Path, resume: bool) -> None:
    """Raise UserError where a new run would overwrite another, or where there is none to resume."""
    present, resumable, last = holds_run(folder), state_file.is_in(folder), state_file.LAST
    if resume and not present:
        raise UserError(f"nothing to resume: {folder / last} does not exist; start the run without --resume")
    if resume and not resumable:
        raise UserError(f"{folder} has no {last}, so its run cannot go on; leave --resume out, and give --save")
    if present and not resumable:
        raise UserError(f"{folder} holds a run without {last}, which cannot go on; rename it, or give --save")
    if present and not resume:
        raise UserError(f"{folder} holds a run already; add --resume to go on with it, or rename it, or give --save")


class RunFiles:
    """What a run writes into its folder, and reads back. Of several processes only the first one writes, after
    `check_held` has raised no UserError: the folder may be another run's by then."""

    def __init__(self, folder: Path, positions: Sequence[int], check_held: Callable[[], None] = lambda: None) -> None:
        self.folder, self.check_held = folder, check_held
        self.exits = {position: exit_file.path_in(folder, position) for position in positions}

    @world.first_only
    def write(self, name: str, content: bytes) -> None:
        """Write a file that is neither a training state nor an exit's: options, log, curves, page."""
        self._write(self.folder / name, content)

    @world.first_only
    def write_state(self, state: Mapping[str, Any]) -> None:
        """Write `latest.pt`, and keep the one before it as `previous.pt`."""
        self._write(self.folder / state_file.LAST, state_file.content(state), keep=self.folder / state_file.BEFORE)

    @world.first_only
    def write_exits(self, network: MultiExit, header: Mapping[str, Any], errors: Sequence[float]) -> None:
        """Write the standalone model of each exit; `errors`, in percent, complete its header."""
        for (position, path), error in zip(self.exits.items(), errors, strict=True):
            about = {**header, "position": position, "error": error}
            self._write(path, exit_file.content(network.exit_state(position), about))

    def damage(self, epoch: int) -> str | None:
        """What is wrong with the exit files, which should be of this epoch, counted from 1; None: nothing."""
        try:
            self.read_errors(epoch)
        except UserError as error:
            return str(error)
        return None

    def read_errors(self, epoch: int) -> list[float]:
        """The errors in the headers, in percent, shallow to deep. Raises UserError where a file is damaged, or not of
        this epoch, counted from 1, as a crash between two of them may leave it."""
        errors = []
        for path in self.exits.values():
            header = exit_file.read_header(path)
            exit_file.check_seal(path)
            if header["epochs"] != epoch:
                raise UserError(f"{path} is of epoch {header['epochs']}, not of epoch {epoch}")
            errors.append(header["error"])
        return errors

    @world.first_only
    def write_errors(self, network: MultiExit, errors: Sequence[float]) -> None:
        """Write the exit files once more, from the network of `read_exits`, with other errors in their headers."""
        header = exit_file.read_header(next(iter(self.exits.values())))
        self.write_exits(network, header, errors)

    def read_exits(self, network: MultiExit) -> MultiExit:
        """This network with the weights of all exit files."""
        for position, path in self.exits.items():
            network.load_state_dict(exit_file.read_weights(path, network.exit_state(position)), strict=False)
        return network

    def _write(self, path: Path, content: bytes | memoryview, keep: Path | None = None) -> None:
        self.check_held()
        write(path, content, keep=keep)
