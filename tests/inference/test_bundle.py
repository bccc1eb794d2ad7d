"""A whole network and its policy as a bundle: it answers as the network does, needs nothing of this program, and says
what goes wrong."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from datasets import sizing
from datasets.decoding import decode_one
from examples import bomb, early_answers
from inference import exported, policies, routing, saved
from runs import EXITS, NAME
from system.errors import UserError
from system.machine import ON_CPU

pytestmark = pytest.mark.slow

# What a machine has that has never seen this program: its modules and PyTorch cannot be imported.
STRANGER = """
import runpy, sys
class Hidden:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "torchvision", "models", "inference", "datasets", "system"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def stranger(bundle, *words):
    """`run.py` of a bundle where there is nothing of this program."""
    command = [sys.executable, "-c", STRANGER, bundle / "run.py", *words]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=bundle.parent, env=environment, capture_output=True, text=True)


def test_a_bundle_routes_batches_without_this_program(early_files, early_model, early_policy, tested, tmp_path):
    """More pictures than one batch has, in an order in which they leave at different exits: classes, probabilities and
    exits are those of `route`, which test.py --policy uses."""
    images = tested.images[:150]
    paths = [tmp_path / f"{index}.png" for index in range(len(images))]
    for path, image in zip(paths, images.numpy(), strict=True):
        Image.fromarray(image).save(path)
    process = stranger(early_files[1], *paths)
    assert (process.returncode, process.stderr) == (0, "")
    rows = [re.fullmatch(r"(.+)  (\d) (\d\.\d{4})  exit (\d+)", line).groups() for line in process.stdout.splitlines()]
    routed = routing.router(early_model, early_policy[0], ON_CPU)(images)
    probabilities, positions = early_answers(early_model, early_policy[0], images)
    assert [row[0] for row in rows] == [str(path) for path in paths]
    assert [int(row[1]) for row in rows] == routed.classes.tolist()
    assert [int(row[3]) for row in rows] == [EXITS[exit] for exit in routed.exits] == positions.tolist()
    assert [float(row[2]) for row in rows] == pytest.approx(probabilities.amax(1).tolist(), abs=1e-4)


def test_a_bundle_sees_pictures_as_this_program_does(early_files, tmp_path):
    """Of other sizes and kinds, and some that cannot be read."""
    pytest.importorskip("onnxruntime")
    from inference.bundle_run import Router

    router, rng = Router(early_files[1]), np.random.default_rng(0)
    colours, grey = rng.integers(0, 256, (50, 37, 3), dtype=np.uint8), rng.integers(0, 65536, (40, 40), dtype=np.uint16)
    kinds = {"a.png": Image.fromarray(colours), "b.png": Image.fromarray(grey), "d.gif": Image.fromarray(colours)}
    kinds |= {"c.jpg": Image.fromarray(colours).convert("CMYK"), "e.png": Image.fromarray(colours).convert("RGBA")}
    kinds |= {"h.tif": Image.fromarray(colours[:, :, 0]), "i.tif": Image.fromarray(grey[:20])}
    kinds["g.tif"] = Image.fromarray(np.full((9, 9), 200, np.int32))
    kinds["f.tif"] = Image.fromarray(rng.random((9, 9), dtype=np.float32))
    for name, picture in kinds.items():
        picture.getexif()[0x112] = 6  # what Exif data turn is seen upright
        picture.save(tmp_path / name, exif=picture.getexif())
    for name, fit in itertools.product(sorted(kinds.keys() - {"f.tif", "g.tif"}), sizing.FITS):
        router.card.update((how := sizing.Sizing(20, fit)).fields())
        assert (router.pixels(str(tmp_path / name)) == decode_one(str(tmp_path / name), how)).all()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "bomb.png").write_bytes(bomb(10_000))
    (tmp_path / "script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n")
    process = stranger(early_files[1], *sorted(tmp_path.iterdir()), tmp_path / "none.png")
    assert process.returncode == 1
    assert len(process.stdout.splitlines()) == 7
    told = re.findall(r"run\.py: \S+/(\S+) cannot be read: (.+)", process.stderr)
    assert [name for name, _ in told] == ["bomb.png", "f.tif", "g.tif", "pipe.png", "script.png", "none.png"]
    assert "decompression bomb" in told[0][1]
    assert told[4][1] == "cannot identify image file"
    assert "Traceback" not in process.stderr


def test_a_bundle_computes_fewer_pictures_at_once_the_larger_they_are(monkeypatch, capsys):
    bundle_run = pytest.importorskip("inference.bundle_run")
    sizes = []

    class Recorder:
        def __init__(self, folder):
            self.card = {"input": [3, 64, 64], "classes": ["a"]}

        def pixels(self, path):
            return np.zeros((64, 64, 3), np.uint8)

        def route(self, x):
            sizes.append(len(x))
            if sizes[3:]:
                raise Exception("Failed to allocate memory for requested buffer")  # of onnxruntime's own classes
            return np.ones((len(x), 1)), np.full(len(x), 5)

    monkeypatch.setattr(bundle_run, "Router", Recorder)
    assert bundle_run.main([f"{index}.png" for index in range(70)]) == 0
    assert sizes == [32, 32, 6]
    assert capsys.readouterr().out.splitlines()[69] == "69.png  a 1.0000  exit 5"
    told = "run.py: no answers from 0.png on: Failed to allocate memory for requested buffer"
    assert bundle_run.main(["0.png", "1.png"]) == told


def test_a_bundle_tells_names_without_their_escapes(early_files, tmp_path):
    for path in early_files[1].iterdir():
        shutil.copy(path, tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**card, "classes": [f"\x1b[3{n}m\n" for n in range(10)]}))
    Image.new("RGB", (8, 8)).save(tmp_path / "\x1b[31m\r.png")
    process = stranger(tmp_path, tmp_path / "\x1b[31m\r.png", tmp_path / "\x1b[2J\n.png")
    assert re.fullmatch(r"\S+/�\[31m�\.png  �\[3\dm� \d\.\d{4}  exit \d+\n", process.stdout)
    assert re.fullmatch(r"run\.py: \S+/�\[2J�\.png cannot be read: there is no such file\n", process.stderr)


def test_what_is_in_a_bundle(early_files, early_policy):
    names = {*(f"segment-{position}.onnx" for position in EXITS), "policy.json", "card.json", "run.py"}
    assert {path.name for path in early_files[1].iterdir()} == names
    assert policies.read(early_files[1] / "policy.json") == early_policy[0]
    card = json.loads((early_files[1] / "card.json").read_text())
    assert (card["name"], card["classes"][3], card["input"]) == (NAME, "3", [3, 32, 32])
    source = (early_files[1] / "run.py").read_text()
    assert len(source.splitlines()) <= 112
    modules = set(re.findall(r"^ *(?:import|from) (\w+)", source, re.MULTILINE))
    assert modules - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "PIL"}
    with pytest.raises(UserError, match=r"is a bundle of export\.py, which is run by itself: python \S+/run\.py"):
        saved.find_files(str(early_files[1]), None, ())
    with pytest.raises(UserError, match=r"is not of export\.py"):
        exported.read(early_files[1] / "segment-5.onnx", None, None)


def test_a_policy_of_another_network_in_a_bundle_is_noticed(early_files, tmp_path):
    for path in early_files[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    other = {**json.loads((tmp_path / "policy.json").read_text()), "model": "another"}
    (tmp_path / "policy.json").write_text(json.dumps(other))
    process = stranger(tmp_path, "a.png")
    assert (process.returncode, process.stderr) == (1, "run.py: policy.json is a policy for another network\n")


@pytest.mark.parametrize(
    ("spoil", "line", "status", "words"),
    [
        ("segment-5.onnx", "RUN a.png", 1, "run.py: the files beside it are not those of a bundle: "),
        ("card.json", "RUN a.png", 1, "run.py: the files beside it are not those of a bundle: "),
        ("policy.json", "RUN a.png", 1, "run.py: the files beside it are not those of a bundle: "),
        ("classes", "RUN a.png", 1, "run.py: the files beside it are not those of a bundle: KeyError: 'classes'"),
        ("fit", "RUN a.png", 1, "run.py: the files beside it are not those of a bundle: KeyError: 'fit'"),
        ("fewer", "RUN a.png", 1, "run.py: the files beside it are not those of a bundle: ValueError: "),
        ("swapped", "RUN a.png", 1, "run.py: the files beside it are not those of a bundle: "),
        ("misplaced", "RUN a.png", 1, "run.py: the files beside it are not those of a bundle: "),
        ("reversed", "RUN a.png", 1, "run.py: the files beside it are not those of a bundle: "),
        (None, "RUN .", 1, "run.py: . cannot be read: it is a folder; give its pictures"),
        (None, "RUN a.png >/dev/full", 1, "run.py: standard output: No space left on device"),
        (None, "RUN a.png | true; exit ${PIPESTATUS[0]}", 1, "run.py: standard output: Broken pipe"),
        (None, "RUN a.png >&-", 1, "run.py: standard output: it is closed"),
        (None, "RUN >&2", 2, "usage: python run.py PICTURE"),
        ("onnxruntime.py", "RUN a.png", 1, "run.py: cannot import name 'InferenceSession'"),
        (None, "RUN --help >&2", 0, "usage: python run.py PICTURE"),
    ],
)
def test_what_goes_wrong_in_a_bundle_is_one_line(spoil, line, status, words, early_files, tested, tmp_path):
    for path in early_files[1].iterdir():
        (tmp_path / path.name).write_bytes(b"{}" if path.name == spoil else path.read_bytes())
    if spoil == "onnxruntime.py":  # stands in the way of the package, as if that were not there
        (tmp_path / spoil).touch()
    card = json.loads((early_files[1] / "card.json").read_bytes())
    first, second, third = card["files"]
    damaged = {
        "classes": {name: value for name, value in card.items() if name != "classes"},
        "fit": {name: value for name, value in card.items() if name != "fit"},
        "fewer": {**card, "classes": card["classes"][:-1]},
        "swapped": {**card, "files": [first, third, second]},
        "reversed": {**card, "files": [third, second, first]},
    }
    if spoil == "misplaced":  # it fits what another segment gives, which has the same shape
        (tmp_path / second).write_bytes((tmp_path / second).read_bytes().replace(b"after_5", b"after_7"))
    if spoil in damaged:
        (tmp_path / "card.json").write_text(json.dumps(damaged[spoil]))
    Image.fromarray(tested.images[0].numpy()).save(tmp_path / "a.png")
    command = line.replace("RUN", f"{sys.executable} run.py")
    process = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (status, "")
    assert process.stderr.startswith(words)
    assert len(process.stderr.splitlines()) == 1
