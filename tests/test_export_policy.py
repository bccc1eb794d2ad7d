"""A whole network that pictures leave early, as one ONNX file and as a bundle: that both answer as the network does,
really skip what lies behind an exit, and need nothing of this program; what is said to mistakes."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import CPU, PROJECT, assert_one_line_error, script
from PIL import Image

import export
import predict
from datasets import digits, sizing
from datasets.decoding import decode_one
from inference import comparison, conditional, early_exit, exported, policies, routing, saved
from inference.early_exit import Rule
from inference.policies import Policy
from system.errors import UsageError, UserError
from system.machine import Machine

pytestmark = pytest.mark.slow

NAME, EXITS = "AuxResNet-14-3", (5, 9, 14)
PICTURES = digits.load(None, "test")
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


@torch.inference_mode()
def logits(model, images):
    """Those of each exit, by the network as it was trained."""
    return model.network(model.normalise(images))


def expected(model, rule, images):
    """N×classes probabilities, and the N positions at which pictures leave."""
    found = logits(model, images)
    exits = early_exit.simulate(found, rule).exits
    probabilities = torch.stack([(z / t).softmax(1) for z, t in zip(found, rule.temperatures, strict=True)])
    return probabilities[exits, torch.arange(len(images))], torch.tensor(rule.positions)[exits]


@pytest.fixture(scope="module")
def model(finished):
    return saved.load({position: finished[1] / f"exit-{position}.safetensors" for position in EXITS})


@pytest.fixture(scope="module")
def policy(model, tmp_path_factory):
    """A policy by which a third of the test pictures leave at each exit, and its file."""
    found, temperatures = logits(model, PICTURES.images), (1.5, 0.8, 1.0)
    first, second = (early_exit.probable(z, t).amax(1) for z, t in zip(found[:2], temperatures, strict=False))
    thresholds = [first.quantile(2 / 3).item()]
    thresholds += [second[first < thresholds[0]].median().item() + 1e-5, 0.0]
    histogram = early_exit.simulate(found, Rule(EXITS, temperatures, tuple(thresholds))).exits.bincount().tolist()
    assert min(histogram) > 100
    about = {"pictures": 360, "error": 1.0, "macs": 2e7, "criterion": "budgetMACs", "limit": 2e7, "confidence": None}
    about |= {"model": policies.fingerprint(model.network), "dataset": "test", "histogram": tuple(histogram)}
    made, path = (
        Policy(EXITS, temperatures, tuple(thresholds), **about),
        tmp_path_factory.mktemp("policy") / "policy.json",
    )
    path.write_bytes(policies.as_json(made))
    return made, path


@pytest.fixture(scope="module")
def made(finished, policy, tmp_path_factory):
    """The network as one file and as a bundle, and what was printed."""
    pytest.importorskip("onnxscript")
    folder, printed = tmp_path_factory.mktemp("made"), []
    for words in (("--to", folder / "model.onnx"), ("--bundle", folder / "bundle")):
        process = script("export.py", "DIGITS", NAME, "--save", finished[0], "--policy", policy[1], *words)
        assert (process.returncode, process.stderr) == (0, "")
        printed.append(process.stdout)
    return folder / "model.onnx", folder / "bundle", printed


def test_it_says_what_it_made(made, policy, finished):
    *paths, printed = made
    for path, text in zip(paths, printed, strict=True):
        title, _, before, after, _, told, left = text.splitlines()
        assert title.split() == ["file", "MB", "ms", "a", "picture", "error"]
        assert before.split()[0] == str(finished[1])
        assert after.split()[0] == str(path)
        assert before.split()[3] == after.split()[3]
        assert told.startswith("360 test pictures: probabilities differ by at most ")
        shares = [
            f"{position}: {count / 3.6:.1f} %" for position, count in zip(EXITS, policy[0].histogram, strict=True)
        ]
        assert left == "leave at " + ", ".join(shares)


def test_one_file_answers_picture_by_picture_as_the_network_does(made, model, policy):
    """Asked as an application asks it, with onnxruntime alone."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(made[0])
    images = PICTURES.images[:60]
    answers = [session.run(["probabilities", "position"], {"images": image[None]}) for image in images.numpy()]
    probabilities, positions = (torch.from_numpy(np.concatenate(part)) for part in zip(*answers, strict=True))
    right = expected(model, policy[0], images)
    torch.testing.assert_close(probabilities, right[0], atol=1e-5, rtol=0)
    assert positions.tolist() == right[1].tolist()
    assert set(positions.tolist()) == set(EXITS)


def test_what_lies_behind_an_exit_is_in_a_branch(made, model):
    """So it is not computed for those that leave: outside are the convolutions up to the first exit, and no others,
    and so on inwards."""
    onnx = pytest.importorskip("onnx")
    graph, depth = onnx.load(made[0]).graph, 0
    for way, _ in model.network.stretches():
        convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in way.modules())
        assert [node.op_type for node in graph.node].count("Conv") == convolutions
        branches = [attribute.g for node in graph.node if node.op_type == "If" for attribute in node.attribute]
        depth += bool(branches)
        graph = next((branch for branch in branches if len(branch.node) > 2), None)
    assert (graph, depth) == (None, 2)


def test_weights_lie_where_they_are_used(made):
    """A runtime optimises the convolutions of a branch only if their weights are in that branch."""
    onnx = pytest.importorskip("onnx")

    def graphs(graph):
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield from graphs(attribute.g)

    for graph in graphs(onnx.load(made[0]).graph):
        inside = {weight.name for weight in graph.initializer}
        assert all(node.input[1] in inside for node in graph.node if node.op_type == "Conv")


def test_one_file_says_what_it_is(made, policy):
    onnx = pytest.importorskip("onnx")
    content = made[0].read_bytes()
    card = json.loads({entry.key: entry.value for entry in onnx.load(made[0]).metadata_props}["AuxResNet"])
    assert (card["name"], card["dataset"], card["position"]) == (NAME, "DIGITS", 14)
    assert card["classes"] == [str(digit) for digit in range(10)]
    assert tuple(card["policy"]["thresholds"]) == policy[0].thresholds
    assert card["policy"]["model"] == policy[0].model
    for word in (str(PROJECT), "site-packages", "Conditional"):
        assert word.encode() not in content


def test_predict_takes_one_file(made, model, policy, capsys):
    plots = sorted(map(str, (PROJECT / "docs").glob("*.png")))
    predict.main([str(made[0]), *plots])
    images = torch.from_numpy(np.stack([decode_one(plot, model.sizing) for plot in plots]))
    answers = zip(plots, *expected(model, policy[0], images), strict=True)
    right = [f"{plot}  {found.argmax()} {found.max():.4f}  exit {position}" for plot, found, position in answers]
    assert capsys.readouterr().out.splitlines() == right
    with pytest.raises(UserError, match=r"--exit 14: .*model\.onnx has a policy, which chooses the exit; leave it out"):
        predict.main([str(made[0]), plots[0], "--exit", "14"])


def stranger(bundle, *words):
    """`run.py` of a bundle where there is nothing of this program."""
    command = [sys.executable, "-c", STRANGER, bundle / "run.py", *words]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=bundle.parent, env=environment, capture_output=True, text=True)


def test_a_bundle_routes_batches_without_this_program(made, model, policy, tmp_path):
    """More pictures than one batch has, in an order in which they leave at different exits: classes, probabilities and
    exits are those of `route`, which test.py --policy uses."""
    images = PICTURES.images[:150]
    paths = [tmp_path / f"{index}.png" for index in range(len(images))]
    for path, image in zip(paths, images.numpy(), strict=True):
        Image.fromarray(image).save(path)
    process = stranger(made[1], *paths)
    assert (process.returncode, process.stderr) == (0, "")
    rows = [re.fullmatch(r"(.+)  (\d) (\d\.\d{4})  exit (\d+)", line).groups() for line in process.stdout.splitlines()]
    routed = routing.router(model, policy[0], Machine(CPU, "float"))(images)
    probabilities, positions = expected(model, policy[0], images)
    assert [row[0] for row in rows] == [str(path) for path in paths]
    assert [int(row[1]) for row in rows] == routed.classes.tolist()
    assert [int(row[3]) for row in rows] == [EXITS[exit] for exit in routed.exits] == positions.tolist()
    assert [float(row[2]) for row in rows] == pytest.approx(probabilities.amax(1).tolist(), abs=1e-4)


def test_a_bundle_sees_pictures_as_this_program_does(made, tmp_path):
    """Of other sizes and kinds, and some that cannot be read."""
    pytest.importorskip("onnxruntime")
    from inference.bundle_run import Router

    router, rng = Router(made[1]), np.random.default_rng(0)
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
    (tmp_path / "script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n")
    process = stranger(made[1], *sorted(tmp_path.iterdir()), tmp_path / "none.png")
    assert process.returncode == 1
    assert len(process.stdout.splitlines()) == 7
    told = re.findall(r"run\.py: \S+/(\S+) cannot be read: (.+)", process.stderr)
    assert [name for name, _ in told] == ["f.tif", "g.tif", "pipe.png", "script.png", "none.png"]
    assert told[3][1] == "cannot identify image file"
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
            return np.ones((len(x), 1)), np.full(len(x), 5)

    monkeypatch.setattr(bundle_run, "Router", Recorder)
    assert bundle_run.main([f"{index}.png" for index in range(70)]) == 0
    assert sizes == [32, 32, 6]
    assert capsys.readouterr().out.splitlines()[69] == "69.png  a 1.0000  exit 5"


def test_a_bundle_tells_names_without_their_escapes(made, tmp_path):
    for path in made[1].iterdir():
        shutil.copy(path, tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**card, "classes": [f"\x1b[3{n}m\n" for n in range(10)]}))
    Image.new("RGB", (8, 8)).save(tmp_path / "\x1b[31m\r.png")
    process = stranger(tmp_path, tmp_path / "\x1b[31m\r.png", tmp_path / "\x1b[2J\n.png")
    assert re.fullmatch(r"\S+/�\[31m�\.png  �\[3\dm� \d\.\d{4}  exit \d+\n", process.stdout)
    assert re.fullmatch(r"run\.py: \S+/�\[2J�\.png cannot be read: there is no such file\n", process.stderr)


def test_predict_py_tells_at_which_exit_each_picture_left(made, model, policy, finished, tmp_path, capsys):
    """Whether the policy is given beside the run or is in the exported file."""
    paths = [str(tmp_path / f"{index:02}.png") for index in range(20)]
    for path, image in zip(paths, PICTURES.images.numpy(), strict=False):
        Image.fromarray(image).save(path)
    probabilities, positions = expected(model, policy[0], PICTURES.images[:20])
    by_run = [NAME, "--save", str(finished[0]), "--policy", str(policy[1]), "--nGPU", "0"]
    for words in (by_run, [str(made[0])]):
        predict.main([*words, *paths, "--format", "json", "--top", "10"])
        told = json.loads(capsys.readouterr().out)
        assert [row["exit"] for row in told] == positions.tolist()
        for row, right in zip(told, probabilities, strict=True):
            found = {each["class"]: each["probability"] for each in row["classes"]}
            assert [found[str(digit)] for digit in range(10)] == pytest.approx(right.tolist(), abs=1e-4)
    assert len(set(positions.tolist())) > 1
    predict.main([*by_run, paths[0]])
    assert re.fullmatch(rf"{paths[0]}  \d \d\.\d{{4}}  exit {positions[0]}\n", capsys.readouterr().out)
    predict.main([*by_run, paths[0], "--format", "csv"])
    assert re.fullmatch(rf"path,rank,class,probability,exit\n.*,1,\d,.*,{positions[0]}\n", capsys.readouterr().out)


def test_what_is_in_a_bundle(made, policy):
    names = {*(f"segment-{position}.onnx" for position in EXITS), "policy.json", "card.json", "run.py"}
    assert {path.name for path in made[1].iterdir()} == names
    assert policies.read(made[1] / "policy.json") == policy[0]
    card = json.loads((made[1] / "card.json").read_text())
    assert (card["name"], card["classes"][3], card["input"]) == (NAME, "3", [3, 32, 32])
    source = (made[1] / "run.py").read_text()
    assert len(source.splitlines()) <= 110
    modules = set(re.findall(r"^ *(?:import|from) (\w+)", source, re.MULTILINE))
    assert modules - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "PIL"}
    with pytest.raises(UserError, match=r"is a bundle of export\.py, which is run by itself: python \S+/run\.py"):
        saved.find_files(str(made[1]), None, ())
    with pytest.raises(UserError, match=r"is not of export\.py"):
        exported.read(made[1] / "segment-5.onnx", None, None)


def test_a_policy_of_another_network_in_a_bundle_is_noticed(made, tmp_path):
    for path in made[1].iterdir():
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
        ("misplaced", "RUN a.png", 1, "run.py: the files beside it are not those of a bundle: ValueError: "),
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
def test_what_goes_wrong_in_a_bundle_is_one_line(spoil, line, status, words, made, tmp_path):
    for path in made[1].iterdir():
        (tmp_path / path.name).write_bytes(b"{}" if path.name == spoil else path.read_bytes())
    if spoil == "onnxruntime.py":  # stands in the way of the package, as if that were not there
        (tmp_path / spoil).touch()
    card = json.loads((made[1] / "card.json").read_bytes())
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
    Image.fromarray(PICTURES.images[0].numpy()).save(tmp_path / "a.png")
    command = line.replace("RUN", f"{sys.executable} run.py")
    process = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (status, "")
    assert process.stderr.startswith(words)
    assert len(process.stderr.splitlines()) == 1


def run(finished, policy, *words):
    export.main(["DIGITS", NAME, "--save", str(finished[0]), "--policy", str(policy[1]), *map(str, words)])


def test_half_keeps_the_weights_in_16_bits_in_both(finished, policy, made, tmp_path, capsys):
    run(finished, policy, "--to", tmp_path / "half.onnx", "--half", "--check", 100)
    run(finished, policy, "--bundle", tmp_path / "half", "--half", "--check", 0)
    assert "100 test pictures: " in (out := capsys.readouterr().out)
    assert "256 pictures of noise: " in out
    whole, half = made[0].stat().st_size, (tmp_path / "half.onnx").stat().st_size
    assert 0.4 < half / whole < 0.8
    wholes, halves = (sum(p.stat().st_size for p in folder.glob("*.onnx")) for folder in (made[1], tmp_path / "half"))
    assert 0.4 < halves / wholes < 0.8


def test_what_answers_otherwise_is_not_written(finished, policy, tmp_path, monkeypatch):
    real = conditional.write

    def another_threshold(model, policy, half):
        changed = {**vars(policy), "thresholds": (policy.thresholds[0] - 0.01, *policy.thresholds[1:])}
        return real(model, Policy(**changed), half)

    pytest.importorskip("onnxscript")
    monkeypatch.setattr(conditional, "write", another_threshold)
    with pytest.raises(UserError, match=r"onnx is not written: on 360 pictures its probabilities are up to 0\.0"):
        run(finished, policy, "--to", tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_an_exit_taken_by_rounding_is_no_difference_but_any_other_is(model, policy):
    rule = policy[0]
    index = expected(model, rule, PICTURES.images)[1].tolist().index(9)
    image, target = PICTURES.images[index, None], PICTURES.targets[index, None]
    divided = zip(logits(model, image), rule.temperatures, strict=True)
    alone = {position: (z / t).softmax(1) for position, (z, t) in zip(EXITS, divided, strict=True)}

    def left(position, rule):
        """The comparison for a file by which this picture, rightly or not, leaves at an exit."""
        answer = (alone[position], torch.tensor([position]))
        return comparison.compare(model, rule, lambda images: answer, [(image, target)])

    right, early, late = (left(position, rule) for position in (9, 5, 14))
    assert (right.moved, right.histogram, right.before) == (0, (0, 1, 0), right.after)
    assert right.difference < 1e-5
    assert (early.moved, early.histogram) == (1, (1, 0, 0))
    assert early.difference == pytest.approx(rule.thresholds[0] - alone[5].max().item(), abs=1e-5)
    assert (late.moved, late.histogram) == (1, (0, 0, 1))
    assert late.difference == pytest.approx(alone[9].max().item() - rule.thresholds[1], abs=1e-5)
    near = Rule(EXITS, rule.temperatures, (rule.thresholds[0], alone[9].max().item() - 1e-5, 0.0))
    late = left(14, near)
    assert late.moved == 1
    assert late.difference < export.ROUNDING[False]


MISTAKES = [
    (["--to", "a.pt2"], UsageError, "--policy is for .onnx files and for --bundle, --to is a.pt2; give another file"),
    (["--exit", "5"], UsageError, "--policy excludes --exit 5"),
    (["--int8"], UsageError, "--policy excludes --int8"),
    (["--bundle", "a", "--to", "b.onnx"], UsageError, "--bundle a excludes --to b.onnx; give one"),
    (["--bundle", ""], UsageError, "'' is not the name of a folder"),
    (["--bundle", "no/where"], UserError, "there is no folder .*no; make it"),
    (["--bundle", "there"], UserError, "there is there already; give a folder that is not there yet"),
    (["--bundle", "there/file"], UserError, "file is there already"),
    (["--bundle", "."], UserError, "is there already"),
    (["--bundle", "loop"], UserError, "loop is there already"),
    (["--policy", "none.json"], UserError, "none.json cannot be read as a policy: No such file"),
]


@pytest.mark.parametrize(("words", "kind", "text"), MISTAKES, ids=lambda value: str(value)[:40])
def test_mistakes_are_told(finished, policy, words, kind, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(kind, match=text) as raised:
        run(finished, policy, *words)
    assert type(raised.value) is kind
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "loop", "there"]


def test_a_bundle_needs_a_policy_and_one_of_this_network(finished, policy, tmp_path):
    process = script("export.py", "DIGITS", NAME, "--bundle", tmp_path / "new", "--save", finished[0])
    assert_one_line_error(process, 2, "--bundle", "needs --policy FILE", "calibrate.py")
    other = tmp_path / "other.json"
    other.write_bytes(policies.as_json(Policy(**{**vars(policy[0]), "model": "another"})))
    words = ("--policy", other, "--bundle", tmp_path / "new", "--save", finished[0])
    process = script("export.py", "DIGITS", NAME, *words)
    assert_one_line_error(process, 1, "other.json is a policy for a network of other weights")
    assert not (tmp_path / "new").exists()
