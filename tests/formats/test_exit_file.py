"""Exit files from strangers: headers that lie, bytes that changed, links that lead elsewhere."""

import gc
import json
import os
import random
import re
import resource
import struct
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save

import checkpoints
import main
from examples import flipped
from formats import exit_file
from inference import saved
from programs import assert_one_line_error, script
from runs import SMALL
from system.errors import UserError

pytestmark = pytest.mark.slow

FIRST = "exit-5.safetensors"


@pytest.fixture(scope="module")
def genuine(finished):
    """An exit file of a finished run: its tensors, its header."""
    path = finished[1] / FIRST
    return load_file(path), exit_file.read_header(path)


def load(path):
    return saved.load({5: path})


def lies(header, tensors):
    """What a forger may change, and a word of the answer."""
    network = header["network"]
    training = {"run": "A-ResNet-8", "dataset": "A", "epochs": 1, "heldOut": None}
    deep = {"depth": 1796, "exits": [5, 1796], "widen": 100, "dropout": 0.0, "shortcut": "B"}
    deeper = {**header, "network": deep, "name": "AuxResNet-1796-2/100"}
    wild = {name: torch.full_like(tensor, -1) for name, tensor in tensors.items() if name.endswith("running_var")}
    renamed = {f"x{name}": tensor for name, tensor in tensors.items()}
    fewer, stem = dict(list(tensors.items())[1:]), tensors["stem.weight"]
    return {
        "a million classes": ({**header, "classes": list(map(str, range(10**6)))}, tensors, "header has more"),
        "no class": ({**header, "classes": []}, tensors, "classes"),
        "another number of classes": ({**header, "classes": ["a", "b"]}, tensors, "has shape"),
        "classes without names": ({**header, "classes": [1, 2]}, tensors, "names"),
        "a deeper network": (deeper, tensors, "it (has|lacks)|shape"),
        "no network": ({**header, "network": {**network, "depth": 57}}, tensors, "depth 57"),
        "a huge widen factor": ({**header, "network": {**network, "widen": 10**9}}, tensors, "widen factor"),
        "exits without end": ({**header, "network": {**network, "exits": [5] * 10**5}}, tensors, "one position twice"),
        "fields of other types": ({**header, "network": {**network, "depth": "14"}}, tensors, "described by"),
        "an origin of half a training": ({**header, "origin": [{"dataset": "A"}]}, tensors, "origin is not"),
        "an origin without end": ({**header, "origin": [training] * 101}, tensors, "a list of 100 trainings at most"),
        "an origin without a name": ({**header, "origin": [{**training, "run": ""}]}, tensors, "origin is not"),
        "another position": ({**header, "position": 9}, tensors, r"holds exit 9; name it exit-9\.safetensors"),
        "no position": ({**header, "position": None}, tensors, "position"),
        "a mean of nothing": ({**header, "mean": [float("nan")] * 3}, tensors, "not finite: NaN"),
        "a mean beyond all pictures": ({**header, "mean": [1e300] * 3}, tensors, "three numbers from 0 to 255"),
        "a mean of 400 digits": ({**header, "mean": [10**400] * 3}, tensors, "number of 401 digits"),
        "pictures of 31 pixels": ({**header, "input": [3, 31, 31]}, tensors, "input is not .3, N, N., where N is"),
        "pictures of 228 pixels": ({**header, "input": [3, 228, 228]}, tensors, "from 16 to 224"),
        "pictures that are not square": ({**header, "input": [3, 64, 32]}, tensors, "input is not"),
        "pictures of 32.0 pixels": ({**header, "input": [3, 32.0, 32.0]}, tensors, "input is not"),
        "a size without end": ({**header, "input": [3] * 10**5}, tensors, "input is not"),
        "no size": ({**header, "input": None}, tensors, "input is not"),
        "pictures that are stretched": ({**header, "fit": "stretch"}, tensors, "fit is not crop or squeeze"),
        "no deviation": ({**header, "std": [0.0, 1.0, 1.0]}, tensors, "std is not three numbers above 0"),
        "an error of more than all": ({**header, "error": 100.5}, tensors, "error is not a number from 0 to 100"),
        "an error that is true": ({**header, "error": True}, tensors, "error is not a number"),
        "epochs below 0": ({**header, "epochs": -1}, tensors, "epochs is not a whole number from 0 on"),
        "an error on nothing": ({**header, "errorOn": "hope"}, tensors, "errorOn is not test or validation"),
        "one class twice": ({**header, "classes": ["a"] * 10}, tensors, "classes is not 1 to 100,000 different names"),
        "a class of no name": ({**header, "classes": [""]}, tensors, "different names"),
        "half a character": ({**header, "classes": [f"\ud800{n}" for n in range(10)]}, tensors, "that can be written"),
        "another name": ({**header, "name": "AuxResNet-56-5"}, tensors, "calls it AuxResNet-56-5"),
        "a name that is none": ({**header, "name": 3}, tensors, "name is not a text"),
        "weights that are not finite": (header, {**tensors, "stem.weight": stem / 0}, "not finite"),
        "variances below 0": (header, {**tensors, **wild}, "running_var is below 0"),
        "a missing tensor": (header, fewer, "lacks"),
        "an extra tensor": (header, {**tensors, "more": torch.zeros(1)}, "has more"),
        "other names": (header, renamed, "it (has|lacks)"),
        "other shapes": (header, {**tensors, "stem.weight": torch.zeros(16, 3, 5, 5)}, "shape"),
        "other types": (header, {name: t.half() for name, t in tensors.items()}, "type"),
        "other 16 bits": (header, {**tensors, "stem.weight": stem.bfloat16()}, "not torch.float32 or torch.float16"),
        "a header without end": ({**header, "more": "x" * (9 << 20)}, tensors, "more than"),
    }  # fmt: skip


def test_headers_that_lie_are_refused_before_memory_is_taken(genuine, tmp_path):
    tensors, header = genuine
    told = {}  # what it is to be refused for, by file, which are all written before memory is short
    for index, (forged, weights, word) in enumerate(lies(header, tensors).values()):
        folder = tmp_path / str(index)
        folder.mkdir()
        (folder / FIRST).write_bytes(exit_file.content(weights, forged))
        told[folder / FIRST] = word
    gc.collect()
    with at_most(300_000_000):
        for path, word in told.items():
            with pytest.raises(UserError, match=word) as caught:
                load(path)
            assert str(path) in str(caught.value), word


@contextmanager
def at_most(more):
    """The system gives this process so many bytes more, and then no memory."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (taken + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_bit_that_flipped_is_refused_by_name(finished, tmp_path):
    """Wherever it is: in a weight, in an error that is still a number, in the name of a class."""
    content, path = (finished[1] / FIRST).read_bytes(), tmp_path / FIRST
    path.write_bytes(content)
    assert script("test.py", "DIGITS", path).returncode == 0
    error, name = (re.search(pattern, content).start(1) for pattern in (rb'error\\": (\d)', rb"classes.*?(7)"))
    for at, bit in ((len(content) - 2, 1), (len(content) // 2, 1), (error, 1), (name, 64)):
        path.write_bytes(flipped(content, at, bit))
        with pytest.raises(UserError, match=f"{path} is damaged: its checksum"):
            load(path)
    export = ("export.py", "DIGITS", path, "--check=0")
    for program in (("test.py", "DIGITS", path), ("predict.py", path, path), export):
        assert_one_line_error(script(*program), 1, f"{path} is damaged")


def test_a_description_that_says_something_twice_is_refused_by_name(genuine, tmp_path):
    content = exit_file.content(*genuine)
    text = content[8 : 8 + int.from_bytes(content[:8], "little")]
    twice = text.replace(b'"__metadata__":{', b'"__metadata__":{"program":"x",').rstrip()
    twice += b" " * (-len(twice) % 8)
    path = tmp_path / FIRST
    path.write_bytes(len(twice).to_bytes(8, "little") + twice + content[8 + len(text) :])
    with pytest.raises(UserError, match=f"{path} cannot be read as the model of an exit: .*twice"):
        exit_file.check_seal(path)


def test_a_finished_run_with_a_damaged_exit_file_is_refused_by_name(run_copy):
    _, folder = run_copy
    (folder / FIRST).write_bytes(flipped((folder / FIRST).read_bytes(), -2))
    with pytest.raises(UserError, match=f"{folder / FIRST} is damaged"):
        checkpoints.RunFiles(folder, (5, 9, 14)).read_errors(2)


def test_weights_without_an_answer_give_no_error(genuine, tmp_path):
    tensors, header = genuine
    path = tmp_path / FIRST
    wild = {name: tensor * 1e30 if tensor.ndim == 4 else tensor for name, tensor in tensors.items()}
    path.write_bytes(exit_file.content(wild, header))
    picture = tmp_path / "grey.png"
    Image.new("L", (32, 32), 99).save(picture)
    asked = (("test.py", "DIGITS", path), ("test.py", "DIGITS", path, "--exit", "all"), ("predict.py", path, picture))
    for program in asked:
        assert_one_line_error(script(*program), 1, "answers with numbers that are not finite")


def test_two_values_under_one_name_are_refused(genuine, tmp_path):
    tensors, header = genuine
    twice = json.dumps(header)[:-1] + ', "error": 0.0}'
    content = exit_file._sealed(save(tensors, {"format": "auxresnet-exit", "formatVersion": "1", "header": twice}))
    (tmp_path / FIRST).write_bytes(content)
    with pytest.raises(UserError, match="one name twice"):
        load(tmp_path / FIRST)


def claims(header, metadata):
    """A file with this description of its tensors and no tensors."""
    text = json.dumps({"__metadata__": metadata, **header}).encode()
    return struct.pack("<Q", len(text)) + text


def test_claims_that_a_file_cannot_hold(tmp_path):
    known = {"format": "auxresnet-exit", "formatVersion": "1", "header": "{}"}
    gigabytes = 10 * 2**30
    huge = {"dtype": "F32", "shape": [gigabytes // 4], "data_offsets": [0, gigabytes]}
    small = claims({"x": huge}, known)  # 10 GB in 1 KB
    forged = {
        small: "cannot be read as the model of an exit",
        struct.pack("<Q", gigabytes) + b"{}": "cannot be read as the model of an exit",
        claims({}, {**known, "formatVersion": "2"}): "has format version 2; this program reads 1",
        claims({}, {**known, "header": "null"}): "cannot be read as the model of an exit",
        claims({}, {**known, "header": "[" * 50_000}): "nested too deeply",
        b"": "cannot be read as the model of an exit",
    }
    path = tmp_path / FIRST
    for content, text in forged.items():
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path}.*{text}"):
            load(path)
    path.write_bytes(small)
    assert_one_line_error(script("test.py", "DIGITS", path), 1, str(path))


def test_2000_mutated_files_are_read_or_refused_by_name(finished, tmp_path):
    content = (finished[1] / FIRST).read_bytes()
    size = 8 + struct.unpack("<Q", content[:8])[0]  # of the description of the tensors
    rng, path, refused = random.Random(0), tmp_path / FIRST, 0
    for turn in range(2000):
        mutant = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(8 if turn % 10 == 0 else size if turn % 10 < 8 else len(content))
            mutant[at] = rng.choice([mutant[at] ^ (1 << rng.randrange(8)), *b'0"9{}[],x\0'])
        if turn % 5 == 0:
            mutant = mutant[: rng.randrange(len(mutant))]
        path.write_bytes(mutant)
        try:
            load(path)
        except UserError as error:
            refused += 1
            assert str(path) in str(error)
    assert 1000 < refused < 2000


def test_weights_that_were_read_do_not_change_with_the_file(run_copy):
    path = run_copy[1] / "exit-5.safetensors"
    expected = saved.load({5: path}).network.state_dict()
    before = {name: tensor.clone() for name, tensor in expected.items()}
    with path.open("r+b") as file:  # written into, not replaced
        file.seek(-1000, os.SEEK_END)
        file.write(bytes(1000))
    assert all(expected[name].equal(tensor) for name, tensor in before.items())


def test_more_classes_than_a_file_can_name_are_refused():
    exit_file.check_classes([f"{index:0250}" for index in range(10_000)])
    for classes in (["a"] * 100_001, [f"{index:0250}" for index in range(20_000)]):
        with pytest.raises(UserError, match="classes are too many to be kept"):
            exit_file.check_classes(classes)


def test_a_run_of_too_many_classes_is_refused_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(exit_file, "MAX_CLASSES", 9)
    with pytest.raises(UserError, match="10 classes are too many to be kept"):
        main.main([*SMALL, "--save", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["exit-5.safetensors", "log.csv", "opt.json", "latest.pt"])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(name, run_copy):
    save, run = run_copy
    (run / "previous.pt").unlink()
    (run / name).unlink()
    os.mkfifo(run / name)
    resume = ("main.py", *SMALL, "--nEpochs", "2", "--save", save, "--resume")
    commands = {"exit-5.safetensors": ("test.py", "DIGITS", run / name), "latest.pt": resume}
    assert_one_line_error(script(*commands.get(name, ("plot.py", run))), 1, str(run / name), "no regular file")
