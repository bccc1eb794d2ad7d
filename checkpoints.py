"""The folder of a run: one safetensors file per exit, the training state, the options, the log.

Every file is written beside its place and moved there in one step, so that a reader sees the old one or the new
one, whole. The training state is written last: a run that stopped before it repeats that epoch, with the same
result. Nothing is unpickled but tensors and plain values (`weights_only=True`).
"""

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from errors import UserError

VERSION = "0.1"
EXIT_FORMAT = 1
STATE_FORMAT = 2
STATE_FILE = "latest.pt"
HEADER_FIELDS = ("network", "name", "dataset", "classes", "mean", "std", "position", "error", "errorOn", "epochs")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; moved there, durably, if the block ends well."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_folder(folder: Path, resume: bool) -> None:
    """Raise UserError where a new run would overwrite another, or where there is none to resume."""
    present = (folder / "opt.json").exists() or (folder / STATE_FILE).exists()
    if resume and not (folder / STATE_FILE).exists():
        raise UserError(f"nothing to resume: {folder / STATE_FILE} does not exist")
    if present and not resume:
        raise UserError(f"{folder} holds a run already; add --resume to go on with it, or rename it, or give --save")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write values as JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def write_log(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of all epochs as CSV, atomically, so that none is missing or doubled after a resume."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with atomic(path) as temporary:
        temporary.write_text(text.getvalue())


def exit_path(folder: Path, position: int) -> Path:
    """The file of one exit's standalone model."""
    return folder / f"exit-{position}.safetensors"


def write_exit(path: Path, weights: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write one exit's standalone model; `header` holds `HEADER_FIELDS` and whatever else is worth keeping."""
    metadata = {"format": "auxresnet-exit", "formatVersion": str(EXIT_FORMAT), "program": f"AuxResNet {VERSION}"}
    with atomic(path) as temporary:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()},
            temporary,
            {**metadata, "header": json.dumps(header)},
        )


def read_exit(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights and the header of an exit file; UserError, naming the file, for anything else."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != "auxresnet-exit":
                raise UserError(f"{path} is a safetensors file, but not the model of an exit")
            if metadata.get("formatVersion") != str(EXIT_FORMAT):
                raise UserError(
                    f"{path} has format version {metadata.get('formatVersion')}; this program reads {EXIT_FORMAT}"
                )
            header = json.loads(metadata["header"])
            missing = [field for field in HEADER_FIELDS if field not in header]
            if missing:
                raise UserError(f"{path}: the header lacks {', '.join(missing)}")
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, header
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read as the model of an exit: {error}") from error


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the training state, the last act of an epoch."""
    with atomic(folder / STATE_FILE) as temporary:
        torch.save({"format": STATE_FORMAT, **state}, temporary)


def read_state(folder: Path) -> dict[str, Any]:
    """The training state of a run, on the CPU; UserError where it is of another format or not a state at all."""
    path = folder / STATE_FILE
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load answers a damaged file with many kinds of error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read as a training state: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise UserError(f"{path} is a training state of format {found}; this program reads {STATE_FORMAT}")
    return state


def exit_files(folder: Path) -> dict[int, Path]:
    """The exit files of a run's folder by position, shallow to deep; empty where there are none."""
    return dict(sorted((position_of(path), path) for path in folder.glob("exit-*.safetensors")))


def position_of(path: Path) -> int:
    """The position in an exit file's name; UserError where it is not of the form exit-<position>.safetensors."""
    number = path.stem.removeprefix("exit-")
    if not (path.name.startswith("exit-") and number.isdecimal()):
        raise UserError(f"{path} is not named exit-<position>.safetensors")
    return int(number)
