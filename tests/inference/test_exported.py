"""Exported files are read as data: what is none of ours, or could run code, is refused before it is looked into."""

import io
import json
import os
import pickle
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from examples import Trap
from inference import archive, exported, exporting, saved
from models import names, networks
from system.errors import UserError

pytestmark = pytest.mark.slow

MODEL = archive.PROGRAM


@pytest.fixture(scope="module")
def content(finished):
    return exporting.content(saved.load({5: finished[1] / "exit-5.safetensors"}), ".pt2")


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


def edited(edit):
    """What changes the program of an archive: `edit` is given it as it was parsed."""

    def edit_members(members):
        program = json.loads(members[MODEL])
        edit(program)
        members[MODEL] = json.dumps(program).encode()

    return edit_members


def pickled(name):
    return lambda members: members.update({name: pickle.dumps(Trap("ran"))})


def call(program, index):
    return program["graph_module"]["module_call_graph"][index]


REFUSED = {
    "a function": replaced(MODEL, b"torch.ops.aten.softmax.int", b"torch.os.system"),
    "a function of a namespace": replaced(MODEL, b"torch.ops.aten.softmax.int", b"#x:softmax"),
    "an expression": replaced(MODEL, b"Symbol(", b"open('ran', 'w') or Symbol("),
    "a dotted name": replaced(MODEL, b'"name": "conv2d"', b'"name": "torch.conv2d"'),
    "a name of Python's": replaced(MODEL, b'"buffer_name": "normalise.mean"', b'"buffer_name": "__class__.mean"'),
    "a tensor of such a name": replaced(archive.DESCRIPTIONS[2], b'"normalise.mean"', b'"__class__.mean"'),
    "metadata": replaced(MODEL, b'"metadata": {}', b'"metadata": {"source_fn_stack": "a,torch.os.system"}'),
    "a graph within": replaced(MODEL, b'"as_none": true', b'"as_graph": {"name": "a", "graph": {}}'),
    "another device": replaced(MODEL, b'"type": "cpu"', b'"type": "cuda"'),
    "a second signature": edited(lambda program: call(program, 1).update(signature=call(program, 0)["signature"])),
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
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"a\.pt2 is no \.pt2 file of export\.py"):
        exported.runnable(changed(content, edit), tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())


def test_packed_members_are_refused(content, tmp_path):
    with pytest.raises(UserError, match="members that are packed"):
        exported.runnable(changed(content, lambda members: None, zipfile.ZIP_DEFLATED), tmp_path / "a.pt2")


def test_pytorch_reads_nothing_but_what_was_checked(content, tmp_path):
    """An archive has two directories, of which Python's reader takes the second, PyTorch's the first."""
    code = pickle.dumps(Trap(str(tmp_path / "ran")))
    card = f"extra/{exported.CARD}"
    good = changed(content, lambda members: members.update({card: members[card] + b" " * len(code)}))
    bad = changed(content, lambda members: members.update({archive.SAMPLE: code}))
    end = -22  # where the last record begins, which tells the place of the directory and stands right behind it
    both = bad[:end] + good[:end] + bad[end:]
    assert exported.runnable(both, tmp_path / "a.pt2").card["position"] == 5
    assert not (tmp_path / "ran").exists()
    assert code not in archive.clean(both, tmp_path / "a.pt2")


def refused(content, edit, path, match):
    """The archive is refused as it is edited, and the code in it, which would leave the file "ran", does not run."""
    with pytest.raises(UserError, match=match):
        exported.runnable(changed(content, edit), path)
    assert not (path.parent / "ran").exists()


STRUCTURES = {  # of inputs and outputs, with what they say of themselves; both name a module
    "builtins.dict": json.dumps({"__enum__": True, "fqn": "trap:a", "name": "a"}),
    "collections.defaultdict": {"default_factory_module": "trap", "default_factory_name": "a", "dict_context": []},
}


@pytest.mark.parametrize("spec", ["in_spec", "out_spec"])
@pytest.mark.parametrize("kind", STRUCTURES)
def test_what_a_structure_names_is_not_imported(content, spec, kind, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "trap", raising=False)
    text = json.dumps([1, {"type": kind, "context": STRUCTURES[kind], "children_spec": []}])
    edit = edited(lambda program: call(program, 0)["signature"].update({spec: text}))
    refused(content, edit, tmp_path / "a.pt2", f"it has the {spec}")


def test_operators_that_no_network_here_has_are_refused(content, tmp_path):
    """`from_file` is one of PyTorch's, and makes a file of any name."""
    arguments = {"filename": {"as_string": str(tmp_path / "ran")}, "shared": {"as_bool": True}, "size": {"as_int": 8}}

    def edit(program):
        graph = program["graph_module"]["graph"]
        graph["tensor_values"]["file"] = graph["tensor_values"]["b_normalise_mean"]
        graph["nodes"].append(
            {
                "target": "torch.ops.aten.from_file.default",
                "inputs": [{"name": name, "arg": value, "kind": 1} for name, value in arguments.items()],
                "outputs": [{"as_tensor": {"name": "file"}}],
                "metadata": {},
            }
        )

    message = r"a\.pt2 is no .*: it has the operator torch\.ops\.aten\.from_file\.default; export it anew, or to \.onnx"
    refused(content, edited(edit), tmp_path / "a.pt2", message)


def test_names_are_no_code(content, tmp_path):
    """PyTorch writes a function from a graph, with the names in it as they are."""
    name = json.dumps(f"images=open({str(tmp_path / 'ran')!r}, 'w')").encode()

    def everywhere(members):
        members[MODEL] = members[MODEL].replace(b'"images"', name)

    refused(content, everywhere, tmp_path / "a.pt2", "it has the name images=open")


def parts(value):
    """All dictionaries of a description, from the outermost in."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from parts(inner)


@pytest.mark.parametrize("field", [*archive.TEXTS, *archive.NAMES])
def test_no_text_of_a_file_may_be_code(content, field, tmp_path):
    def edit(members):
        for name in archive.DESCRIPTIONS:
            description = json.loads(members[name])
            for part in parts(description):
                if field in part:
                    part[field] = {str: "exit()", list: ["exit()"], dict: {"exit()": 1}}[type(part[field])]
            members[name] = json.dumps(description).encode()

    refused(content, edit, tmp_path / "a.pt2", r"it has the \w+ exit\(\)")


NETWORKS = [
    names.configure(8, 1, shortcut="B"),
    names.configure(8, 1, widen=2, dropout=0.3, shortcut="A"),
    names.configure(14, 2, exits=(5, 14)),
    names.configure(11, 1, shortcut="A"),  # of bottlenecks
]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_networks_of_every_kind_are_read(finished, network, half, tmp_path):
    model = saved.load({5: finished[1] / "exit-5.safetensors"})
    model = replace(model, network=networks.build(network, 10))
    assert exported.runnable(exporting.content(model, ".pt2", half), tmp_path / "a.pt2").classes == tuple("0123456789")


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_mutated_files_are_read_or_refused_by_name(finished, suffix, tmp_path, capfd):
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    whole = exporting.content(saved.load({5: finished[1] / "exit-5.safetensors"}), suffix)
    rng, refused = np.random.default_rng(0), 0
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
            refused += 1
    assert refused >= 12  # every fifth is cut short
    assert capfd.readouterr() == ("", "")


def saved_program(module, example, **extra):
    buffer = io.BytesIO()
    program = exporting.program(module, example, any_number=False)
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


def test_packages_that_do_not_fit_together_are_told(monkeypatch):
    def broken(*_, **__):
        raise AttributeError("module 'ml_dtypes' has no attribute 'float8_e8m0fnu'")

    pytest.importorskip("onnx_ir")
    monkeypatch.setattr(torch.onnx, "export", broken)
    with pytest.raises(UserError, match=r"no ONNX file .*AttributeError: module 'ml_dtypes' .*: pip install -U -r req"):
        exporting.as_onnx(None, [], [], "")


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
