"""Files that run without this program: one exit as a .pt2 of torch.export or as an ONNX file; read, and run.

Both take N×side×side×3 uint8 pictures, any N, and give N×classes probabilities; normalisation is inside, batch norms
are folded. Both hold a card, as JSON under the name `CARD`: network, data set, classes, size of the input,
normalisation, position, error. An ONNX file of a whole network, see `inference/conditional.py`, takes its pictures one
by one, and is read here, too.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.export.passes import move_to_device_pass

from datasets.sizing import Sizing
from formats.exit_file import HEADER_FIELDS, UNSAID
from inference import archive
from inference.classifier import POLICY, Model
from system import devices, files, strict
from system.devices import CPU
from system.errors import UserError, failures_as

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

CARD = "AuxResNet"
INPUT, OUTPUT = "images", "probabilities"
POSITION = "position"  # the other output of a file whose pictures leave early
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def require_packages(path: Path, names: Sequence[str] = PACKAGES) -> None:
    """Raise UserError naming those of the packages that are missing; by default all that writing ONNX files takes."""
    if missing := [name for name in names if find_spec(name) is None]:
        raise UserError(f"{path}: ONNX needs {', '.join(missing)}; pip install -r requirements-export.txt")


def black(sizing: Sizing, count: int) -> Tensor:
    """So many pictures of a size, all of them black."""
    return torch.zeros(count, sizing.side, sizing.side, 3, dtype=torch.uint8)


def read(path: Path, position: int | None, gpus: int | None) -> Model:
    """The classifier in a .pt2 or .onnx file. `position` is what exit it has to be (None: whichever it is), `gpus` as
    for `devices.choose`; ONNX files run on the CPU.

    Raises UserError where the file is not one of `export.py`.
    """
    if path.suffix == ".onnx":
        require_packages(path, ("onnxruntime",))
    content = files.read(path)
    device = devices.choose(gpus)[0] if path.suffix == ".pt2" else CPU
    model = runnable(content, path, device)
    if position is not None and POLICY in model.card:
        raise UserError(f"--exit {position}: {path} has a policy, which chooses the exit; leave it out")
    if position not in (None, model.card["position"]):
        raise UserError(f"--exit {position}: {path} is exit {model.card['position']}; leave it out")
    return model


def runnable(content: bytes, path: Path, device: torch.device = CPU) -> Model:
    """The classifier that such a file holds; UserError naming `path` where it is none."""
    run, text = _read_pt2(content, path, device) if path.suffix == ".pt2" else _read_onnx(content, path)
    about = _card(text, path)

    def answers(images: Tensor) -> tuple[Tensor, Tensor]:
        probabilities, *positions = run(images)
        return probabilities, positions[0] if positions else torch.full((len(images),), about["position"])

    model = Model(answers, about)
    side = model.sizing.side
    with failures_as(lambda _: f"{path} does not take N×{side}×{side}×3 pictures of uint8; export it anew"):
        shape, known = (tuple(part.shape) for part in answers(black(model.sizing, 3)))
    if (shape, known) != ((3, len(model.classes)), (3,)):
        raise UserError(f"{path} gives {shape} for 3 pictures and {len(model.classes)} classes; export it anew")
    return model


def _read_pt2(content: bytes, path: Path, device: torch.device) -> tuple[Callable[[Tensor], tuple[Tensor, ...]], str]:
    """What runs a .pt2 file, and the text of its card; UserError naming `path` where it is no such file."""
    checked = io.BytesIO(archive.clean(content, path))
    notes = {CARD: ""}
    with failures_as(lambda error: f"{path} cannot be read as a .pt2 file: {error}"), quiet():
        program = torch.export.load(checked, extra_files=notes)
        module = move_to_device_pass(program, device).module() if device != CPU else program.module()

    @torch.inference_mode()
    def run(images: Tensor) -> tuple[Tensor, ...]:
        return (module(images.to(device)).cpu(),)

    return run, notes[CARD]


def _read_onnx(content: bytes, path: Path) -> tuple[Callable[[Tensor], tuple[Tensor, ...]], str]:
    """The same for an ONNX file, which may give positions besides the probabilities."""
    session, text = onnx_session(content, path)
    one_by_one = [argument.shape[:1] for argument in session.get_inputs()] == [[1]]
    wanted = [name for name in (OUTPUT, POSITION) if name in [output.name for output in session.get_outputs()]]

    def run(images: Tensor) -> tuple[Tensor, ...]:
        batches = images.split(1 if one_by_one else len(images))
        parts = [session.run(wanted, {INPUT: batch.numpy()}) for batch in batches]
        return tuple(torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))

    return run, text


def onnx_session(content: bytes, path: Path) -> tuple["InferenceSession", str]:
    """What runs an ONNX file, and the text of its card; UserError naming `path` where it is no such file."""
    import onnxruntime

    with failures_as(lambda error: f"{path} cannot be read as an ONNX file: {error}"):
        session = onnxruntime.InferenceSession(
            content,
            session_options(),
            providers=["CPUExecutionProvider"],
            enable_fallback=False,  # which would print
        )
        return session, session.get_modelmeta().custom_metadata_map.get(CARD, "")


def session_options() -> "SessionOptions":
    """ONNX files are run with as many threads as PyTorch has, and print nothing."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    return options


def _card(text: str, path: Path) -> dict[str, Any]:
    """The card in a file's metadata; UserError where there is none."""
    try:
        found = {**UNSAID, **strict.loads(text)}
        right = all(HEADER_FIELDS[field][0](found.get(field)) for field in ("classes", "position", *UNSAID))
    except (ValueError, TypeError):
        right = False
    if not right:
        raise UserError(
            f"{path} is not of export.py, or is a part of a bundle: it does not say which classes it tells apart, of "
            "what pictures; export it anew, or run the run.py beside it"
        )
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """While open, the exporter's notes about itself are not shown; its failures are exceptions."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
