"""Exported files are read as data: what is none of ours, or could run code, is refused before it is looked into."""

import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from inference import archive, exported, saved
from system.errors import UserError

pytestmark = pytest.mark.slow

MODEL = archive.PROGRAM


class Trap:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture(scope="module")
def content(finished):
    return exported.write(saved.load({5: finished[1] / "exit-5.safetensors"}), ".pt2")


def changed(content, edit, compression=zipfile.ZIP_STORED):
    """The archive with its members, by their name within it, as `edit` leaves them."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    edit(members)
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"archive/{name}", data)
    return result.getvalue()


def replaced(name, old, new):
    def edit(members):
        assert old in members[name]
        members[name] = members[name].replace(old, new, 1)

    return edit


def pickled(name):
    return lambda members: members.update({name: pickle.dumps(Trap("/tmp/never"))})


REFUSED = {
    "a function": replaced(MODEL, b"torch.ops.aten.softmax.int", b"torch.os.system"),
    "a function of a namespace": replaced(MODEL, b"torch.ops.aten.softmax.int", b"#x:softmax"),
    "an expression": replaced(MODEL, b"Symbol(", b"open('/tmp/never', 'w') or Symbol("),
    "a guard": replaced(MODEL, b'"guards_code": []', b'"guards_code": ["exit()"]'),
    "a pickled weight": replaced(archive.DESCRIPTIONS[1], b'"use_pickle": false', b'"use_pickle": true'),
    "pickled inputs": pickled(archive.SAMPLE),
    "pickled weights": pickled("data/weights/model.pt"),
    "a pickled constant": pickled("data/constants/opaque_obj_0"),
    "another program": lambda members: members.update({"models/other.json": members[MODEL]}),
    "compiled code": lambda members: members.update({"data/aotinductor/model/a.so": b""}),
    "no program": lambda members: members.pop(MODEL),
    "a program that is no JSON": lambda members: members.update({MODEL: b"["}),
    "a program of lists": lambda members: members.update({MODEL: b"[" * 10**5}),
}


def test_a_file_that_was_only_packed_anew_is_read(content, tmp_path):
    assert exported.runnable(changed(content, lambda members: None), tmp_path / "a.pt2").card["position"] == 5


@pytest.mark.parametrize("edit", REFUSED.values(), ids=REFUSED)
def test_what_could_run_code_is_refused(content, edit, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.export, "load", None)  # it is not asked
    with pytest.raises(UserError, match=r"a\.pt2 is no \.pt2 file of export\.py"):
        exported.runnable(changed(content, edit), tmp_path / "a.pt2")


def test_packed_members_are_refused(content, tmp_path):
    with pytest.raises(UserError, match="packed or pickled"):
        exported.runnable(changed(content, lambda members: None, zipfile.ZIP_DEFLATED), tmp_path / "a.pt2")


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_mutated_files_are_read_or_refused_by_name(finished, suffix, tmp_path, capfd):
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    whole = exported.write(saved.load({5: finished[1] / "exit-5.safetensors"}), suffix)
    rng = np.random.default_rng(0)
    for index in range(60):
        mutant = bytearray(whole)
        start = 0 if index % 2 else len(whole) - 30_000  # what describes an archive lies at its end
        for place in rng.integers(start, len(whole), rng.choice([1, 3, 30])):
            mutant[place] = rng.integers(256)
        try:
            exported.runnable(
                bytes(mutant if index % 5 else mutant[: rng.integers(len(whole))]), tmp_path / f"a{suffix}"
            )
        except UserError as error:
            assert str(error).startswith(str(tmp_path))
    assert capfd.readouterr() == ("", "")


def saved_program(module, *inputs, **extra):
    buffer = io.BytesIO()
    program = torch.export.export(module, inputs)
    program.example_inputs = None
    torch.export.save(program, buffer, extra_files={name: json.dumps(value) for name, value in extra.items()})
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize("bytes_", [b"", b"PK\x03\x04", b"not a model" * 100], ids=["empty", "cut", "text"])
def test_other_files_are_named(tmp_path, suffix, bytes_):
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    path = tmp_path / f"a{suffix}"
    path.write_bytes(bytes_)
    with pytest.raises(UserError, match=f"a{suffix}"):
        exported.read(path, None, 0 if suffix == ".pt2" else None)


def test_a_program_of_something_else_is_named(tmp_path):
    with pytest.raises(UserError, match=r"is not of export\.py"):
        exported.runnable(saved_program(nn.Linear(3, 2), torch.zeros(1, 3)), tmp_path / "a.pt2")
    card = {"classes": ["a", "b"], "position": 5}
    with pytest.raises(UserError, match="does not take N×32×32×3 pictures"):
        exported.runnable(saved_program(nn.Linear(3, 2), torch.zeros(1, 3), AuxResNet=card), tmp_path / "a.pt2")
    for odd in ([], {"classes": "ab"}, {"classes": [1], "position": 5}, {"classes": [], "position": 5}):
        with pytest.raises(UserError, match=r"is not of export\.py"):
            exported.runnable(saved_program(nn.Linear(3, 2), torch.zeros(1, 3), AuxResNet=odd), tmp_path / "a.pt2")


def test_an_onnx_file_of_something_else_is_named(tmp_path):
    onnx = pytest.importorskip("onnx")
    kind, shape = onnx.TensorProto.FLOAT, ["N", 3]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "other",
        [onnx.helper.make_tensor_value_info("x", kind, shape)],
        [onnx.helper.make_tensor_value_info("y", kind, shape)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(UserError, match=r"is not of export\.py"):
        exported.runnable(model.SerializeToString(), tmp_path / "a.onnx")
    entry = model.metadata_props.add()
    entry.key, entry.value = exported.CARD, json.dumps({"classes": ["a", "b"], "position": 5})
    with pytest.raises(UserError, match="does not take N×32×32×3 pictures"):
        exported.runnable(model.SerializeToString(), tmp_path / "a.onnx")


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_pipe_in_place_of_an_exported_file_is_not_waited_for(tmp_path, suffix):
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    os.mkfifo(tmp_path / f"a{suffix}")
    with pytest.raises(UserError, match=r"is no regular file"):
        exported.read(tmp_path / f"a{suffix}", None, None)
