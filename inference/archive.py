"""What may be in a .pt2 file, looked at before PyTorch reads it.

`torch.export.load` unpickles some members of the archive, evaluates the text of shapes, imports what the structure of
inputs and outputs names, looks the functions of the graph up by name, and compiles the names in it as Python, so that a
crafted file could run anything. Files of export.py need none of that: their operators are few, their shapes are numbers
or one symbol, their names are words, their tensors are plain bytes. Nothing else is let pass.
"""

import io
import json
import re
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from system.errors import failures_as

PROGRAM, SAMPLE = "models/model.json", "data/sample_inputs/model.pt"
DESCRIPTIONS = (PROGRAM, "data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
TENSORS = re.compile(r"data/weights/weight_[0-9]+|data/constants/tensor_[0-9]+")
NOTES = re.compile(r"extra/\w+|archive_format|archive_version|byteorder|\.data/\w+")

# What PyTorch 2.9 to 2.15 makes of this program's networks, whatever their depth, width, shortcuts, dropout, `--half`.
OPERATORS = """
    _assert_tensor_metadata.default add_.Tensor batch_norm.default conv2d.default div_.Tensor dropout.default
    linear.default mean.dim pad.default permute.default relu_.default slice.Tensor softmax.int sub_.Tensor to.dtype
""".split()


def _structure(kind: str | None, context: str | None, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "context": context, "children_spec": parts}


# How PyTorch describes what goes in and comes out.
TENSOR = _structure(None, None)
ONE_ARGUMENT = _structure(
    "builtins.tuple", "null", _structure("builtins.tuple", "null", TENSOR), _structure("builtins.dict", "[]")
)

# The fields of a description that hold a text, and what this may be. No name begins with two underscores, as Python's
# own do.
WORD, PATH = r"(?!__)[A-Za-z_][A-Za-z0-9_]*", r"((?!__)[A-Za-z0-9_]+(\.(?!__)[A-Za-z0-9_]+)*)?"
TEXTS = {
    "target": rf"torch\.ops\.aten\.({'|'.join(map(re.escape, OPERATORS))})",
    "expr_str": r"[0-9]+|s[0-9]+|Symbol\('s[0-9]+'(, (positive|integer)=True)*\)",
    "in_spec": re.escape(json.dumps([1, ONE_ARGUMENT])),
    "out_spec": re.escape(json.dumps([1, TENSOR])),
    "name": WORD,
    "forward_arg_names": WORD,
    "path_name": r"(weight|tensor)_[0-9]+",
    "parameter_name": PATH,
    "buffer_name": PATH,
    "fqn": PATH,
    "type": "cpu",
    "verifiers": "TRAINING",
    "torch_version": r"[\w.+-]*",
}
# The fields that hold anything else. Those that are not among them, such as `use_pickle`, are false or empty.
FIELDS = """
    arg as_bool as_device as_expr as_float as_int as_ints as_layout as_none as_scalar_type as_tensor buffer config
    device dtype graph graph_module hint input_specs inputs is_param kind layout major min_val minor module_call_graph
    nodes opset_version output_specs outputs parameter persistent range_constraints requires_grad schema_version
    signature sizes storage_offset strides tensor_meta tensor_values user_input user_output
""".split()
# Those whose parts stand under names of their own, and what these may be.
NAMES = {"config": PATH, "tensor_values": WORD, "range_constraints": "s[0-9]+", "opset_version": "aten"}


class _Odd(Exception):
    """What no file of export.py has."""


def clean(content: bytes, path: Path) -> bytes:
    """The content of a .pt2 file, written anew from what was read and looked at here. PyTorch is given this alone,
    because it has a reader of archives of its own, which may find other members in the same bytes.

    Raises UserError where the content is anything but plain tensors and a graph of known operators.
    """
    with failures_as(lambda error: f"{path} is no .pt2 file of export.py{_why(error)}"):
        members = _members(content)
        descriptions = {name: json.loads(members[name]) for name in DESCRIPTIONS}
        for description in descriptions.values():
            _check(description)
        if any(module["signature"] for module in descriptions[PROGRAM]["graph_module"]["module_call_graph"][1:]):
            raise _Odd("a signature of a part")
        return _written({**members, **{name: json.dumps(part).encode() for name, part in descriptions.items()}})


def _why(error: Exception) -> str:
    if isinstance(error, _Odd):
        return f", and is not read: it has {error}; export it anew, or to .onnx"
    return f": {str(error) or type(error).__name__}"


def _members(content: bytes) -> dict[str, bytes]:
    """The members of an archive, by their names within its only folder. Raises _Odd where they are others than those
    of export.py."""
    with ZipFile(io.BytesIO(content)) as archive:
        found = archive.infolist()
        if any(info.compress_type != ZIP_STORED for info in found) or sum(i.file_size for i in found) > len(content):
            raise _Odd("members that are packed, or overlap")
        root = found[0].filename.partition("/")[0]
        members = {info.filename.removeprefix(f"{root}/"): archive.read(info) for info in found}
    if len(members) != len(found):
        raise _Odd("two members of one name")
    for name in members:
        if not (name in (*DESCRIPTIONS, SAMPLE) or TENSORS.fullmatch(name) or NOTES.fullmatch(name)):
            raise _Odd(f"a member {name[:80]}")
    if members[SAMPLE]:
        raise _Odd("pickled inputs")
    return members


def _check(part: Any, field: str = "") -> None:
    """Raise _Odd where a part of a description, the value of that field, has a text or a field that it may not have."""
    if isinstance(part, str) and not (field in TEXTS and re.fullmatch(TEXTS[field], part)):
        raise _Odd(f"the {'operator' if field == 'target' else field} {part[:80]}")
    if isinstance(part, list):
        for item in part:
            _check(item, field)
    if isinstance(part, dict):
        for name, value in part.items():
            if field in NAMES:
                known, inner = re.fullmatch(NAMES[field], name), ""
            else:
                known, inner = name in FIELDS or name in TEXTS or not value, name
            if not known:
                raise _Odd(f"the field {name[:80]}")
            _check(value, inner)


def _written(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with ZipFile(content, "w", ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(ZipInfo(f"archive/{name}"), data)
    return content.getvalue()
