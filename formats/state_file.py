"""The file of a training state, from which a run goes on, and the one before it, which is kept.

It ends with a checksum of its own, since PyTorch does not check the one in its archives. Nothing is unpickled but
tensors and plain values (`weights_only=True`).
"""

import hashlib
import io
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZipFile

import torch

from system import files
from system.errors import UserError, is_shortage, reason
from system.output import tell

FORMAT = 3
LAST, BEFORE, DAMAGED = "latest.pt", "previous.pt", "damaged.pt"
SEAL = b"\nAuxResNet state, SHA-256 "  # between a training state and its checksum


class Damaged(UserError):
    """A training state that is missing, or was changed since it was written."""


def is_in(folder: Path) -> bool:
    """Whether there is a training state to go on from."""
    return any((folder / name).exists() for name in (LAST, BEFORE))


def content(state: Mapping[str, Any]) -> memoryview:
    """The file of a training state."""
    file = io.BytesIO()
    torch.save({"format": FORMAT, **state}, file)
    file.write(SEAL + hashlib.sha256(file.getbuffer()).hexdigest().encode())
    return file.getbuffer()


def read(folder: Path) -> tuple[dict[str, Any], str | None]:
    """The training state of a run, on the CPU; where the last one is missing or damaged, the one before it, and what is
    wrong with the last. Raises UserError where neither can be read, and where the last one is of another version, or
    cannot be read now."""
    try:
        return _checked(folder / LAST), None
    except Damaged as error:
        if not (folder / BEFORE).exists():
            raise
        return _checked(folder / BEFORE), str(error)


def take_up(folder: Path) -> dict[str, Any]:
    """The state for the run that goes on, which has the folder to itself. What is wrong with the last one is told, and
    a damaged one gets another name, lest the next write should put it in the place of the good one before it."""
    state, wrong = read(folder)
    if wrong:
        tell(f"{wrong}; going on from the state before it, {folder / BEFORE}")
        if os.path.lexists(folder / LAST):
            (folder / LAST).replace(folder / DAMAGED)
            tell(f"the damaged one is kept as {folder / DAMAGED}")
    return state


def _checked(path: Path) -> dict[str, Any]:
    """Raises Damaged where there is no state, and UserError where there is one that cannot be read now, or that another
    version wrote."""
    try:
        whole = files.read(path)
    except UserError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise Damaged(str(error)) from error
    body, seal, digest = whole.rpartition(SEAL)
    if not seal or hashlib.sha256(body).hexdigest().encode() != digest:
        raise Damaged(f"{path} is damaged, or not a training state of format {FORMAT}, which this program reads")
    try:
        with warnings.catch_warnings(action="ignore"), ZipFile(io.BytesIO(body)) as archive:
            if sum(member.file_size for member in archive.infolist()) > len(body):
                raise ValueError("it is packed; this program packs none")
            state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load answers a strange file with many kinds of error
        if is_shortage(error):
            raise
        odd = reason(error)
        if isinstance(error, UnpicklingError):  # PyTorch's own words recommend to unpickle whatever it is
            odd = "it has something else in it than tensors and plain values"
        raise Damaged(f"{path} cannot be read as a training state: {odd}") from error
    found = state.get("format") if isinstance(state, dict) else type(state).__name__
    if type(found) is not int or found != FORMAT:
        raise UserError(f"{path} is a training state of format {found}; this program reads {FORMAT}")
    return state
