"""The folder of a run: one safetensors file per exit, the training state, the options, and what is made of them.

Every file is written beside its place, brought to the disk, and moved there in one step, so that a reader sees the old
one or the new one, whole. The training state is written before the exits of its epoch: where a crash kept these from
following, they are made of it when the run goes on. It ends with a checksum of its own, since PyTorch does not check
the one in its archives, and the state before it is kept. Nothing is unpickled but tensors and plain values
(`weights_only=True`).
"""

import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZipFile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from datasets.sizing import FITS, SIDES
from models.multiexit import MultiExit
from system import strict, world
from system.errors import UserError, is_shortage
from system.files import read, regular, write
from system.output import printable
from system.strict import is_number

VERSION = "0.1"
EXIT_FORMAT = 1
STATE_FORMAT = 3
STATE_FILE, PREVIOUS_STATE_FILE, DAMAGED_STATE_FILE = "latest.pt", "previous.pt", "damaged.pt"
SEAL = b"\nAuxResNet state, SHA-256 "  # between a training state and its checksum
MAX_CLASSES = 100_000
CHECKSUM = "sha256"  # in the metadata of an exit file; older versions wrote none
MAX_HEADER = 1 << 23  # bytes: enough for ten thousand classes of the longest names that folders can have
EXIT_NAME = re.compile(r"exit-([0-9]+)\.safetensors", re.ASCII)
# Half of a character, which JSON can name and nothing can write. (What lies between stands for a byte of a name that is
# not UTF-8, and is written as that.)
HALF = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")


def _are_names(value: Any) -> bool:
    return (
        type(value) is list
        and 1 <= len(value) <= MAX_CLASSES
        and all(type(name) is str and name and not HALF.search(name) for name in value)
        and len(set(value)) == len(value)
    )


def _are_three(low: float) -> Callable[[Any], bool]:
    return lambda value: type(value) is list and len(value) == 3 and all(is_number(v, low, 255) for v in value)


def _is_input(value: Any) -> bool:
    return type(value) is list and value in [[3, side, side] for side in SIDES] and all(type(v) is int for v in value)


# What the header of an exit file has: for each field whether a value is right, and what it has to be.
HEADER_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "network": (lambda value: type(value) is dict, "the fields of a network"),
    "name": (lambda value: type(value) is str, "a text"),
    "dataset": (lambda value: type(value) is str, "a text"),
    "classes": (_are_names, f"1 to {MAX_CLASSES:,} different names that can be written"),
    "input": (_is_input, f"[3, N, N], where N is a multiple of {SIDES.step} from {SIDES[0]} to {SIDES[-1]}"),
    "fit": (lambda value: value in FITS, " or ".join(FITS)),
    "mean": (_are_three(0), "three numbers from 0 to 255"),
    "std": (_are_three(1e-6), "three numbers above 0, up to 255"),
    "position": (lambda value: is_number(value, 1, 99999, int), "a whole number from 1 on"),
    "error": (lambda value: is_number(value, 0, 100), "a number from 0 to 100"),
    "errorOn": (lambda value: value in ("test", "validation"), "test or validation"),
    "epochs": (lambda value: is_number(value, 0, 10**9, int), "a whole number from 0 on"),
    "shares": (lambda value: is_number(value, 1, 10**6, int), "a whole number from 1 on"),
}
# What older versions did, and did not write into a header.
UNSAID = {"input": [3, 32, 32], "fit": "squeeze", "shares": 1}


class Damaged(UserError):
    """A training state that is missing, or was changed since it was written."""


def holds_run(folder: Path) -> bool:
    """Whether a folder has anything of a run in it that must not be lost."""
    return holds_state(folder) or bool(exit_files(folder))


def holds_state(folder: Path) -> bool:
    """Whether there is a training state to go on from."""
    return any((folder / name).exists() for name in (STATE_FILE, PREVIOUS_STATE_FILE))


def check_folder(folder: Path, resume: bool) -> None:
    """Raise UserError where a new run would overwrite another, or where there is none to resume."""
    present, resumable = holds_run(folder), holds_state(folder)
    if resume and not present:
        raise UserError(f"nothing to resume: {folder / STATE_FILE} does not exist; start the run without --resume")
    if present and not resumable:
        raise UserError(f"{folder} holds a run without {STATE_FILE}, which cannot go on; rename it, or give --save")
    if present and not resume:
        raise UserError(f"{folder} holds a run already; add --resume to go on with it, or rename it, or give --save")


def check_classes(classes: Sequence[str]) -> None:
    """Raise UserError where there is nothing to tell apart, or more classes than an exit file can name."""
    if len(classes) == 1:
        raise UserError(f"all pictures are of one class, {printable(classes[0], 40)}; it takes two to tell apart")
    if len(classes) > MAX_CLASSES or len(json.dumps(classes)) > MAX_HEADER // 2:  # the other half is for the rest
        raise UserError(
            f"{len(classes):,} classes are too many to be kept: there may be {MAX_CLASSES:,}, their names together of "
            f"{MAX_HEADER // 2:,} bytes as JSON"
        )


def odd_values(weights: Mapping[str, Tensor]) -> str | None:
    """Which of the tensors of a network has values that no training gives, and what is wrong with them; None: none."""
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            return f"{name} has numbers that are not finite"
        if name.endswith((".running_var", ".num_batches_tracked")) and (tensor < 0).any():
            return f"{name} is below 0"
    return None


def exit_path(folder: Path, position: int) -> Path:
    """The file of one exit's standalone model."""
    return folder / f"exit-{position}.safetensors"


def exit_content(weights: Mapping[str, Tensor], header: Mapping[str, Any]) -> bytes:
    """The file of one exit's standalone model; `header` holds `HEADER_FIELDS` and whatever else is worth keeping."""
    metadata = {"format": "auxresnet-exit", "formatVersion": str(EXIT_FORMAT), "program": f"AuxResNet {VERSION}"}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    return _sealed(save(tensors, {**metadata, "header": json.dumps(header)}))


def _sealed(content: bytes) -> bytes:
    """A safetensors file with a checksum, and with its description in alphabetical order: the library writes metadata
    in any order, but the same model is to be the same bytes. The format: the description's length in 8 bytes, JSON
    padded with spaces to a multiple of 8, then the tensors."""
    start = 8 + int.from_bytes(content[:8], "little")
    description = json.loads(content[8:start])
    checksum = hashlib.sha256(_in_order(description) + content[start:]).hexdigest()
    description["__metadata__"][CHECKSUM] = checksum
    text = _in_order(description)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]


def _in_order(description: Mapping[str, Any]) -> bytes:
    return json.dumps(description, sort_keys=True, separators=(",", ":")).encode()


def check_seal(path: Path) -> None:
    """Raise UserError where an exit file is not, to the bit, what was written. One without a checksum is of an older
    version; nothing is known about it."""
    with path.open("rb") as file:
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


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Turn what a file that is no exit's raises into a UserError that names it."""
    try:
        yield
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read as the model of an exit: {error}") from error


def read_header(path: Path) -> dict[str, Any]:
    """The header of an exit file, its fields of the right types; UserError, naming the file, for anything else."""
    with _damage_told(path):
        with _opened(path) as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != "auxresnet-exit":
            raise UserError(f"{path} is a safetensors file, but not the model of an exit")
        version = metadata.get("formatVersion")
        if version != str(EXIT_FORMAT):
            raise UserError(f"{path} has format version {version}; this program reads {EXIT_FORMAT}")
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
    """The weights in an exit file, which must have the names, shapes and types of `expected` (tensors without memory);
    UserError, before any memory is taken for them, where they have not."""
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
        weights = {name: file.get_tensor(name) for name in expected}
    for name, tensor in expected.items():
        if weights[name].dtype != tensor.dtype:
            raise UserError(f"{path}: {name} is of type {weights[name].dtype}, not {tensor.dtype}")
    if odd := odd_values(weights):
        raise UserError(f"{path} is damaged: {odd}; copy or train it anew")
    return weights


def state_content(state: Mapping[str, Any]) -> memoryview:
    """The file of a training state."""
    content = io.BytesIO()
    torch.save({"format": STATE_FORMAT, **state}, content)
    content.write(SEAL + hashlib.sha256(content.getbuffer()).hexdigest().encode())
    return content.getbuffer()


def read_state(folder: Path, warn: Callable[[str], None]) -> dict[str, Any]:
    """The training state of a run, on the CPU; where the last one is missing or damaged, the one before it, and `warn`
    is told so. Raises UserError where neither can be read."""
    return _last_readable(folder, warn)[1]


def take_up_state(folder: Path, warn: Callable[[str], None]) -> dict[str, Any]:
    """The same for the run that goes on, which has the folder to itself: a damaged last state gets another name, lest
    the next write should put it in the place of the good one before it."""
    path, state = _last_readable(folder, warn)
    last = folder / STATE_FILE
    if path != last and os.path.lexists(last):
        last.replace(folder / DAMAGED_STATE_FILE)
        warn(f"the damaged one is kept as {folder / DAMAGED_STATE_FILE}")
    return state


def _last_readable(folder: Path, warn: Callable[[str], None]) -> tuple[Path, dict[str, Any]]:
    last, before = folder / STATE_FILE, folder / PREVIOUS_STATE_FILE
    try:
        return last, _read_state(last)
    except Damaged as error:
        if not before.exists():
            raise
        state = _read_state(before)
        warn(f"{error}; going on from the state before it, {before}")
        return before, state


def _read_state(path: Path) -> dict[str, Any]:
    """Raises Damaged where there is no state, and UserError where there is one that cannot be read now, or that another
    version wrote."""
    try:
        content = read(path)
    except UserError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise Damaged(str(error)) from error
    body, seal, digest = content.rpartition(SEAL)
    if not seal or hashlib.sha256(body).hexdigest().encode() != digest:
        raise Damaged(f"{path} is damaged, or not a training state of format {STATE_FORMAT}, which this program reads")
    try:
        with warnings.catch_warnings(action="ignore"), ZipFile(io.BytesIO(body)) as archive:
            if sum(member.file_size for member in archive.infolist()) > len(body):
                raise ValueError("it is packed; this program packs none")
            state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load answers a strange file with many kinds of error
        if is_shortage(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, UnpicklingError):  # PyTorch's own words recommend to unpickle whatever it is
            reason = "it has something else in it than tensors and plain values"
        raise Damaged(f"{path} cannot be read as a training state: {reason}") from error
    found = state.get("format") if isinstance(state, dict) else type(state).__name__
    if type(found) is not int or found != STATE_FORMAT:
        raise UserError(f"{path} is a training state of format {found}; this program reads {STATE_FORMAT}")
    return state


def exit_files(folder: Path) -> dict[int, Path]:
    """The exit files of a run's folder by position, shallow to deep; empty where there are none. Raises UserError where
    the folder may not be read."""
    if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        raise UserError(f"{folder} cannot be read: Permission denied")
    files = (path for path in folder.glob("exit-*.safetensors") if EXIT_NAME.fullmatch(path.name))
    return dict(sorted((position_of(path), path) for path in files))


def position_of(path: Path) -> int:
    """The position in an exit file's name; UserError where it is not of the form exit-<position>.safetensors."""
    name = EXIT_NAME.fullmatch(path.name)
    if not name:
        raise UserError(f"{path} is not named exit-<position>.safetensors")
    return int(name[1])


class RunFiles:
    """What a run writes into its folder, and reads back. Of several processes only the first one writes, after
    `check_held` has raised no UserError: the folder may be another run's by then."""

    def __init__(self, folder: Path, positions: Sequence[int], check_held: Callable[[], None] = lambda: None) -> None:
        self.folder, self.check_held = folder, check_held
        self.exits = {position: exit_path(folder, position) for position in positions}

    @world.first_only
    def write_options(self, options: Mapping[str, Any]) -> None:
        """Write `opt.json`."""
        self._write(self.folder / "opt.json", (json.dumps(options, indent=2) + "\n").encode())

    @world.first_only
    def write_log(self, rows: bytes) -> None:
        """Write `log.csv`, with the rows of all epochs, so that none is missing or doubled after a resume."""
        self._write(self.folder / "log.csv", rows)

    @world.first_only
    def write_curves(self, plot: bytes) -> None:
        """Write `curves.png`."""
        self._write(self.folder / "curves.png", plot)

    @world.first_only
    def write_page(self, page: str) -> None:
        """Write `README.md`."""
        self._write(self.folder / "README.md", page.encode())

    @world.first_only
    def write_state(self, state: Mapping[str, Any]) -> None:
        """Write `latest.pt`, and keep the one before it as `previous.pt`."""
        self._write(self.folder / STATE_FILE, state_content(state), keep=self.folder / PREVIOUS_STATE_FILE)

    @world.first_only
    def write_exits(self, network: MultiExit, header: Mapping[str, Any], errors: Sequence[float]) -> None:
        """Write the standalone model of each exit; `errors`, in percent, complete its header."""
        for (position, path), error in zip(self.exits.items(), errors, strict=True):
            about = {**header, "position": position, "error": error}
            self._write(path, exit_content(network.exit_state(position), about))

    def damage(self, epoch: int) -> str | None:
        """What is wrong with the exit files, which should be of this epoch, counted from 1; None: nothing."""
        try:
            (path, header), *_ = self._read_headers().items()
        except UserError as error:
            return str(error)
        found = header["epochs"]
        return None if found == epoch else f"{path} is of epoch {found}, not of epoch {epoch}"

    def read_errors(self) -> list[float]:
        """The errors in the headers, in percent, shallow to deep. Raises UserError where a file is damaged, or of
        another epoch than the others, as a crash between two of them leaves it."""
        return [header["error"] for header in self._read_headers().values()]

    def _read_headers(self) -> dict[Path, dict[str, Any]]:
        headers = {path: read_header(path) for path in self.exits.values()}
        *_, last = headers.values()
        for path, header in headers.items():
            check_seal(path)
            if header["epochs"] != last["epochs"]:
                raise UserError(f"{path} is of epoch {header['epochs']}, the last exit of epoch {last['epochs']}")
        return headers

    @world.first_only
    def write_errors(self, network: MultiExit, errors: Sequence[float]) -> None:
        """Write the models that `read_exits` gave anew, with other errors in their headers."""
        for (position, path), error in zip(self.exits.items(), errors, strict=True):
            about = {**read_header(path), "error": error}
            self._write(path, exit_content(network.exit_state(position), about))

    def read_exits(self, network: MultiExit) -> MultiExit:
        """This network with the weights of all exit files."""
        for position, path in self.exits.items():
            network.load_state_dict(read_weights(path, network.exit_state(position)), strict=False)
        return network

    def _write(self, path: Path, content: bytes | memoryview, keep: Path | None = None) -> None:
        self.check_held()
        write(path, content, keep=keep)
