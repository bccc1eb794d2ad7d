"""The file of one exit's model: a safetensors file whose header says how to rebuild it and how it was judged.

It stands alone, and is checked before it is believed: its checksum, the types of the header, the weights that such a
network has.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from datasets.sizing import FITS, LEGAL_SIDES, SIDES
from models.exits import MAX_DEPTH
from models.names import EXIT_NAME, exit_files, exit_name
from models.networks import odd_values
from system import strict
from system.errors import UserError, failures_as
from system.files import regular
from system.strict import is_number

PROGRAM = "AuxResNet 0.1"  # and its version
FORMAT = 1
MAX_CLASSES = 100_000
CHECKSUM = "sha256"  # in the metadata of an exit file; older versions wrote none
MAX_HEADER = 1 << 23  # bytes: enough for ten thousand classes of the longest names that folders can have
# Surrogates, halves of a character: JSON can name them, UTF-8 has no place for them. (Those from U+DC80 to U+DCFF are
# left out here: they are Python's `surrogateescape` for a byte of a file's name that is not UTF-8, and written as it.)
SURROGATES = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")


def _are_names(value: Any) -> bool:
    return (
        type(value) is list
        and 1 <= len(value) <= MAX_CLASSES
        and all(type(name) is str and name and not SURROGATES.search(name) for name in value)
        and len(set(value)) == len(value)
    )


def _are_three(low: float) -> Callable[[Any], bool]:
    return lambda value: type(value) is list and len(value) == 3 and all(is_number(v, low, 255) for v in value)


def _is_input(value: Any) -> bool:
    return type(value) is list and value in [[3, side, side] for side in SIDES] and all(type(v) is int for v in value)


def are_epochs(value: Any) -> bool:
    """Whether a value is a list of numbers of epochs."""
    return type(value) is list and all(is_number(epochs, 1, 10**9, int) for epochs in value)


def _is_name(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= 255  # as long as those of folders may be


# What is told of a training that the weights of a run had behind them when it began: the name of its run, its data set,
# its epochs, and the SHA-256 of its validation pictures, or None where it had none.
TRAINING: dict[str, Callable[[Any], bool]] = {
    "run": _is_name,
    "dataset": _is_name,
    "epochs": lambda value: is_number(value, 0, 10**9, int),
    "heldOut": lambda value: value is None or _is_name(value),
}
MAX_TRAININGS = 100


def are_trainings(value: Any) -> bool:
    """Whether a value is a list of so many trainings at most, each of which has what `TRAINING` says, and no more."""
    return (
        type(value) is list
        and len(value) <= MAX_TRAININGS
        and all(type(training) is dict and training.keys() == TRAINING.keys() for training in value)
        and all(right(training[field]) for training in value for field, right in TRAINING.items())
    )


# What the header of an exit file has: for each field whether a value is right, and what it has to be.
HEADER_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "network": (lambda value: type(value) is dict, "the fields of a network"),
    "name": (lambda value: type(value) is str, "a text"),
    "dataset": (lambda value: type(value) is str, "a text"),
    "classes": (_are_names, f"1 to {MAX_CLASSES:,} different names that can be written"),
    "input": (_is_input, f"[3, N, N], where N is {LEGAL_SIDES}"),
    "fit": (lambda value: value in FITS, " or ".join(FITS)),
    "mean": (_are_three(0), "three numbers from 0 to 255"),
    "std": (_are_three(1e-6), "three numbers above 0, up to 255"),
    "position": (lambda value: is_number(value, 1, MAX_DEPTH, int), f"a whole number from 1 to {MAX_DEPTH:,}"),
    "error": (lambda value: is_number(value, 0, 100), "a number from 0 to 100"),
    "errorOn": (lambda value: value in ("test", "validation"), "test or validation"),
    "epochs": (lambda value: is_number(value, 0, 10**9, int), "a whole number from 0 on"),
    "shares": (lambda value: is_number(value, 1, 10**6, int), "a whole number from 1 on"),
    "extended": (are_epochs, "a list of numbers of epochs"),
    "origin": (are_trainings, f"a list of {MAX_TRAININGS} trainings at most, each with {', '.join(TRAINING)}"),
}
# What older versions did, and did not write into a header.
UNSAID = {"input": [3, 32, 32], "fit": "squeeze", "shares": 1, "extended": [], "origin": []}


def check_classes(classes: Sequence[str]) -> None:
    """Raise UserError where there are more classes than an exit file can name."""
    if len(classes) > MAX_CLASSES or len(json.dumps(classes)) > MAX_HEADER // 2:  # the other half is for the rest
        raise UserError(
            f"{len(classes):,} classes are too many to be kept: there may be {MAX_CLASSES:,}, their names together of "
            f"{MAX_HEADER // 2:,} bytes as JSON"
        )


def path_in(folder: Path, position: int) -> Path:
    """The file of one exit's standalone model."""
    return folder / exit_name(position)


def content(weights: Mapping[str, Tensor], header: Mapping[str, Any]) -> bytes:
    """The file of one exit's standalone model; `header` holds `HEADER_FIELDS` and whatever else is worth keeping."""
    metadata = {"format": "auxresnet-exit", "formatVersion": str(FORMAT), "program": PROGRAM}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    return _sealed(save(tensors, {**metadata, "header": json.dumps(header)}))


def narrowed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an exit in about half the bytes: those of convolutions and linear layers, which are nearly all, in
    16 bits. `read_weights` widens them."""
    return {name: tensor.to(_kept_as(tensor)[-1]) for name, tensor in weights.items()}


def _kept_as(tensor: Tensor) -> tuple[torch.dtype, ...]:
    """The types in which a tensor of a network may be kept, the smallest last. Biases and what batch norms have are few
    numbers, which stay as they are."""
    return (tensor.dtype, torch.float16) if tensor.dtype == torch.float32 and tensor.ndim > 1 else (tensor.dtype,)


def _sealed(model: bytes) -> bytes:
    """A safetensors file with a checksum, and with its description in alphabetical order: the library writes metadata
    in any order, but the same model is to be the same bytes. The format: the description's length in 8 bytes, JSON
    padded with spaces to a multiple of 8, then the tensors."""
    start = 8 + int.from_bytes(model[:8], "little")
    description = json.loads(model[8:start])
    checksum = hashlib.sha256(_in_order(description) + model[start:]).hexdigest()
    description["__metadata__"][CHECKSUM] = checksum
    text = _in_order(description)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + model[start:]


def _in_order(description: Mapping[str, Any]) -> bytes:
    return json.dumps(description, sort_keys=True, separators=(",", ":")).encode()


def check_seal(path: Path) -> None:
    """Raise UserError where an exit file is not, to the bit, what was written. One without a checksum is of an older
    version; nothing is known about it."""
    with _damage_told(path), path.open("rb") as file:
        description = strict.loads(file.read(int.from_bytes(file.read(8), "little")))
        written = description["__metadata__"].pop(CHECKSUM, None)
        digest = hashlib.sha256(_in_order(description))
        while written and (part := file.read(1 << 20)):
            digest.update(part)
    if written and digest.hexdigest() != written:
        raise UserError(f"{path} is damaged: its checksum is not that of what it holds; copy or train it anew")


def _opened(path: Path) -> Any:
    """A safetensors file, opened. Raises UserError for what is no regular file, OSError for what may not be read, and
    what `safe_open` raises."""
    regular(path)
    path.open("rb").close()  # tells why a file may not be read; `safe_open` says that there is none
    return safe_open(path, framework="pt")


def _damage_told(path: Path) -> AbstractContextManager[None]:
    """Turn what a file that is no exit's raises into a UserError that names it."""
    return failures_as(lambda error: f"{path} cannot be read as the model of an exit: {error}")


def read_header(path: Path) -> dict[str, Any]:
    """The header of an exit file, its fields of the right types; UserError, naming the file, for anything else."""
    with _damage_told(path):
        with _opened(path) as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != "auxresnet-exit":
            raise UserError(f"{path} is a safetensors file, but not the model of an exit")
        version = metadata.get("formatVersion")
        if version != str(FORMAT):
            raise UserError(f"{path} has format version {version}; this program reads {FORMAT}")
        if len(metadata["header"]) > MAX_HEADER:
            raise UserError(f"{path}: the header has more than {MAX_HEADER} bytes")
        header = {**UNSAID, **strict.loads(metadata["header"])}
        wrong = [field for field, (right, _) in HEADER_FIELDS.items() if not right(header.get(field))]
    if wrong:
        described = "; ".join(f"{field} is not {HEADER_FIELDS[field][1]}" for field in wrong)
        raise UserError(f"{path}: the header is not that of an exit: {described}")
    return header


def written_by(path: Path) -> str:
    """The program that wrote an exit file, and its version, such as `AuxResNet 0.1`."""
    with _opened(path) as file:
        return file.metadata().get("program", "a program that is not named")


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights in an exit file, which must have the names, shapes and types of `expected` (tensors without memory),
    those that are kept in 16 bits widened; UserError, before any memory is taken for them, where they have not."""
    with _damage_told(path), _opened(path) as file:
        names = set(file.keys())
        if odd := sorted(names ^ expected.keys()):
            what = "lacks" if odd[0] in expected else "has"
            raise UserError(f"{path} does not hold the network of its header: it {what} {odd[0]}")
        for name, tensor in expected.items():
            shape = tuple(file.get_slice(name).get_shape())
            if shape != tuple(tensor.shape):
                raise UserError(f"{path}: {name} has shape {shape}, its header makes it {tuple(tensor.shape)}")
        check_seal(path)  # now that it is known to be of a size that is worth reading
        # Copies, because what is given lies in the file itself, into which others may write.
        weights = {name: file.get_tensor(name).clone() for name in expected}
    for name, tensor in expected.items():
        kept, legal = weights[name].dtype, _kept_as(tensor)
        if kept not in legal:
            raise UserError(f"{path}: {name} is of type {kept}, not {' or '.join(map(str, legal))}")
        weights[name] = weights[name].to(tensor.dtype)
    if odd := odd_values(weights):
        raise UserError(f"{path} is damaged: {odd}; copy or train it anew")
    return weights


def files_in(folder: Path) -> dict[int, Path]:
    """The exit files of a run's folder by position, shallow to deep; empty where there are none. Raises UserError where
    the folder may not be read."""
    if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        raise UserError(f"{folder} cannot be read: Permission denied")
    return dict(sorted((position_of(path), path) for path in exit_files(folder)))


def position_of(path: Path) -> int:
    """The position in an exit file's name; UserError where it is not of the form exit-<position>.safetensors."""
    name = EXIT_NAME.fullmatch(path.name)
    if not name:
        raise UserError(f"{path} is not named exit-<position>.safetensors")
    return int(name[1])
