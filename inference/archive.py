"""What may be in a .pt2 file, looked at before PyTorch reads it.

`torch.export.load` unpickles some members of the archive, evaluates the text of shapes, and looks the functions of the
graph up by name, so that a crafted file could run anything. Files of export.py need none of that: their graphs have
tensor operators alone, their shapes are numbers or one symbol, their tensors are plain bytes. Nothing else is let pass.
"""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

from system.errors import UserError

PROGRAM, SAMPLE = "models/model.json", "data/sample_inputs/model.pt"
DESCRIPTIONS = (PROGRAM, "data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
TENSORS = re.compile(r"data/weights/weight_\d+|data/constants/tensor_\d+")
NOTES = re.compile(r"extra/\w+|archive_format|archive_version|byteorder|\.data/\w+")
OPERATOR = re.compile(r"torch\.ops\.aten\.\w+\.\w+")
SYMBOL = re.compile(r"\d+|s\d+|Symbol\('s\d+'(, (positive|integer)=True)*\)")


def check(content: bytes, path: Path) -> None:
    """Raise UserError where the content of a .pt2 file is anything but plain tensors and a graph of operators."""
    try:
        with ZipFile(io.BytesIO(content)) as archive:
            odd = next(_odd(archive), None)
    except Exception as error:  # a strange archive fails in many ways
        raise UserError(f"{path} is no .pt2 file of export.py: {error or type(error).__name__}") from error
    if odd:
        raise UserError(f"{path} is no .pt2 file of export.py, and is not read: it has {odd[:80]}")


def _odd(archive: ZipFile) -> Iterator[str]:
    """Names for what a file of export.py does not have."""
    root = archive.namelist()[0].partition("/")[0] if archive.namelist() else ""
    members = {info.filename.removeprefix(f"{root}/"): info for info in archive.infolist()}
    if len(members) != len(archive.infolist()):
        yield "two members of one name"
    for name, info in members.items():
        if not (name in (*DESCRIPTIONS, SAMPLE) or TENSORS.fullmatch(name) or NOTES.fullmatch(name)):
            yield f"a member {name}"
        if info.compress_type != ZIP_STORED or (name == SAMPLE and info.file_size):
            yield f"a member {name} that is packed or pickled"
    for name in DESCRIPTIONS:
        yield from _odd_values(json.loads(archive.read(members[name])))


def _odd_values(value: Any) -> Iterator[str]:
    """The same for a part of a description."""
    if isinstance(value, list):
        for item in value:
            yield from _odd_values(item)
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("target", "as_operator") and not OPERATOR.fullmatch(item):
                yield f"the function {item}"
            if key == "expr_str" and not SYMBOL.fullmatch(item):
                yield f"the expression {item}"
            if key in ("use_pickle", "guards_code", "custom_obj_values", "treespec_namedtuple_fields") and item:
                yield f"{key} {item}"
            yield from _odd_values(item)
