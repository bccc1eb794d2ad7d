"""One exit as a file that runs without this program: what is in it, that it is compared, and what is said to
mistakes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import export
import predict
from examples import answers_of, write_pictures
from formats import exit_file
from inference import asking, comparison, early_exit, exported, exporting, saved
from models import metrics
from programs import PROJECT, assert_one_line_error, error_line, rows_of, script
from runs import NAME
from system.errors import UsageError, UserError

pytestmark = pytest.mark.slow

KINDS = (".pt2", ".onnx")
COUNT = 7  # pictures
ALONE = {
    ".pt2": """
import io, json, sys, torch
notes = {"AuxResNet": ""}
program = torch.export.load(sys.argv[1], extra_files=notes)
run = lambda images: program.module()(images)
""",
    ".onnx": """
import json, sys, onnxruntime, torch
session = onnxruntime.InferenceSession(sys.argv[1])
notes = session.get_modelmeta().custom_metadata_map
run = lambda images: torch.from_numpy(session.run(["probabilities"], {"images": images.numpy()})[0])
""",
}


@pytest.fixture(scope="module", params=KINDS)
def made(request, finished, tmp_path_factory):
    """An exported exit 5 of each kind, and what was printed."""
    if request.param == ".onnx":
        pytest.importorskip("onnxscript")
    target = tmp_path_factory.mktemp("made") / f"model{request.param}"
    process = script("export.py", "DIGITS", NAME, "--exit", 5, "--to", target, "--save", finished[0])
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return target, process.stdout


def test_it_says_what_it_made(made, finished):
    target, printed = made
    header, rows = exit_file.read_header(finished[1] / "exit-5.safetensors"), rows_of(printed)
    assert [Path(row["file"]).name for row in rows] == ["exit-5.safetensors", target.name]
    assert float(rows[1]["MB"]) == pytest.approx(target.stat().st_size / 1e6, abs=0.01)
    assert [row["error"] for row in rows] == [f"{header['error']:.2f} %"] * 2
    assert printed.splitlines()[-1].startswith("360 test pictures: probabilities differ by at most ")


def test_it_runs_without_this_program(made, finished, tested, tmp_path):
    """In a process that cannot find the project, for one picture and for seven; the card is in it."""
    code = ALONE[made[0].suffix] + (
        "images = torch.load('images.pt')\n"
        "torch.save([run(images), run(images[:1])], 'answers.pt')\n"
        "print(notes['AuxResNet'])\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('models', 'inference')]\n"
    )
    images = tested.images[:COUNT]
    torch.save(images, tmp_path / "images.pt")
    process = subprocess.run(
        [sys.executable, "-c", code, made[0]], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    seven, one = torch.load(tmp_path / "answers.pt")
    torch.testing.assert_close(seven, answers_of(finished[1], images, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(one, seven[:1], atol=1e-5, rtol=0)
    card = json.loads(process.stdout)
    assert (card["name"], card["dataset"], card["position"]) == (NAME, "DIGITS", 5)
    assert card["classes"] == [str(digit) for digit in range(10)]
    assert len(card["mean"]) == len(card["std"]) == 3
    assert card["program"].startswith("AuxResNet ")
    assert card["error"] == exit_file.read_header(finished[1] / "exit-5.safetensors")["error"]


def test_nothing_of_the_machine_is_in_it(made):
    content = made[0].read_bytes()
    for word in (str(PROJECT), "site-packages", str(Path.home()), "Classifier"):
        assert word.encode() not in content


def test_predict_takes_it(made, finished, capsys):
    plot = str(PROJECT / "docs" / "tradeoff.png")
    told = []
    for model in ([str(made[0])], [NAME, "--save", str(finished[0])]):
        predict.main([*model, plot, "--exit", "5", "--nGPU", "0", "--format", "json", "--top", "10"])
        (answer,) = json.loads(capsys.readouterr().out)
        told.append({found["class"]: found["probability"] for found in answer["classes"]})
    assert told[0] == pytest.approx(told[1], abs=1e-4)
    with pytest.raises(UserError, match=r"--exit 14: .* is exit 5; leave it out"):
        predict.main([str(made[0]), plot, "--exit", "14", "--nGPU", "0"])


def run(finished, *words):
    export.main(["DIGITS", NAME, "--save", str(finished[0]), *map(str, words)])


@pytest.mark.parametrize("suffix", KINDS)
def test_half_keeps_the_weights_in_16_bits(finished, tmp_path, suffix, capsys):
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    target = tmp_path / f"half{suffix}"
    run(finished, "--to", target, "--half", "--check", 100)
    whole = exporting.content(saved.load({14: finished[1] / "exit-14.safetensors"}), suffix)
    assert 0.4 < target.stat().st_size / len(whole) < 0.8
    assert "100 test pictures" in capsys.readouterr().out


def test_an_exit_file_in_16_bits_is_one_for_all_programs(finished, tested, tmp_path, capsys):
    """Its kernels are rounded, the rest of its weights and its header are those of the whole one; nothing replaces a
    trained exit."""
    target, of_run = tmp_path / "exit-14.safetensors", finished[1] / "exit-14.safetensors"
    run(finished, "--to", target, "--half")
    after = rows_of(capsys.readouterr().out)[1]["error"]
    assert 0.45 < target.stat().st_size / of_run.stat().st_size < 0.7
    small, whole = (saved.load({14: path}) for path in (target, of_run))
    assert small.header == whole.header
    for name, weight in whole.network.state_dict().items():
        rounded = weight.half().float() if weight.ndim > 1 else weight
        assert torch.equal(small.network.state_dict()[name], rounded), name
    process = script("test.py", "DIGITS", target)
    assert (process.returncode, process.stdout) == (0, error_line(after)), process.stderr
    image = tested.images[0].numpy()
    Image.fromarray(image).save("digit.png")
    predict.main([str(target), "digit.png", "--nGPU", "0"])
    hub = torch.hub.load(str(PROJECT), "auxresnet", name=str(target), source="local")
    ((name, probability),) = hub.predict(image)
    assert capsys.readouterr().out == f"digit.png  {name} {probability:.4f}\n"
    for path in (target, of_run):
        before = path.read_bytes()
        with pytest.raises(UserError, match="is there already, and no exit file is replaced by another"):
            run(finished, "--to", path, "--half")
        assert path.read_bytes() == before


def test_int8_tells_its_cost(finished, tested, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    run(finished, "--to", tmp_path / "small.onnx", "--int8", "--exit", 14)
    after = rows_of(capsys.readouterr().out)[1]["error"]
    model = exported.read(tmp_path / "small.onnx", 14, None)
    probabilities, _ = model.answers(tested.images)
    assert after == f"{metrics.top_error(probabilities, tested.targets):.2f} %"
    whole, small = (path.stat().st_size for path in (finished[1] / "exit-14.safetensors", tmp_path / "small.onnx"))
    assert small < whole
    assert model.card["dataset"] == "DIGITS"


def test_noise_will_do_where_there_are_no_data(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(asking, "test_pictures", None)  # they are not asked for
    run(finished, "--to", tmp_path / "model.pt2", "--check", 0)
    out = capsys.readouterr().out
    assert "256 pictures of noise" in out
    assert "error" not in out


def test_a_file_that_answers_otherwise_is_not_written(finished, tmp_path, monkeypatch):
    real = exporting.content

    def slightly_wrong(model, *arguments):
        content = real(model, *arguments)
        model.network.heads[str(model.header["position"])].linear.bias.data[0] += 0.01
        return content

    monkeypatch.setattr(exporting, "content", slightly_wrong)
    target = tmp_path / "model.pt2"
    target.write_bytes(b"an older file")
    with pytest.raises(UserError, match=r"model.pt2 is not written: on 50 pictures .* more than rounding"):
        run(finished, "--to", target, "--check", 50)
    assert target.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [target]


def test_eight_bits_that_cost_too_much_are_not_written():
    options = export.opts.EXPORT.parsed(["DIGITS", NAME, "--int8"])
    with pytest.raises(UserError, match=r"8 bits raise the error on 100 pictures from 3.00 to 4.10"):
        export.check(comparison.Comparison(100, 0.3, 3.0, 4.1, (100,), 0), options, Path("model.onnx"))
    export.check(comparison.Comparison(100, 0.3, 3.0, 4.0, (100,), 0), options, Path("model.onnx"))


@pytest.mark.parametrize(
    ("words", "difference", "advice"),
    [
        ([], 2e-4, "another version of PyTorch"),
        ([], float("nan"), "another version of PyTorch"),
        (["--half"], 0.06, "leave out --half"),
    ],
)
def test_files_that_differ_by_more_than_rounding_are_not_written(words, difference, advice):
    options = export.opts.EXPORT.parsed(["DIGITS", NAME, *words])
    with pytest.raises(UserError, match=f"is not written: on 100 pictures .* more than rounding .*; {advice}"):
        export.check(comparison.Comparison(100, difference, 3.0, 3.0, (100,), 0), options, Path("model.onnx"))


def nothing(images):
    """The answers of a file that has gone wrong."""
    return torch.full((len(images), 10), torch.nan), torch.full((len(images),), 5)


def test_a_probability_that_is_no_number_is_a_difference(finished, tested):
    model = saved.load({5: finished[1] / "exit-5.safetensors"})
    batches = [(tested.images[:COUNT], torch.zeros(COUNT))] * 2
    difference = comparison.compare(model, early_exit.only(5), nothing, batches).difference
    assert difference != difference


MISTAKES = [
    (["DIGITS", NAME, "--to", "model.bin"], UsageError, "'model.bin' is not the name of a .onnx, a .pt2 or an exit-"),
    (["DIGITS", NAME, "--half", "--to", "model.safetensors"], UsageError, "'model.safetensors' is not the name of a"),
    (["DIGITS", NAME, "--to", "exit-14.safetensors"], UsageError, "would be the exit's own; add --half"),
    (["DIGITS", NAME, "--half", "--to", "exit-5.safetensors"], UserError, "the exit is 14; .* exit-14.safetensors"),
    (["DIGITS", NAME, "--exit", "all"], UsageError, "--exit"),
    (["DIGITS", NAME, "--int8", "--to", "a.pt2"], UsageError, "--int8 is for .onnx files"),
    (["DIGITS", NAME, "--int8", "--half"], UsageError, "--int8 is for .onnx files without --half"),
    (["DIGITS", NAME, "--int8", "--check", "0"], UsageError, "--int8 needs test pictures"),
    (["DIGITS", "nothing"], UsageError, "'nothing' is neither a network's name nor the path"),
    (["NOTHING", NAME], UsageError, "NOTHING"),
    (["DIGITS", NAME, "--to", "a.pt2", "--exit", "7"], UserError, "no exit 7 in .*; there are: 5, 9, 14"),
    (["DIGITS", NAME, "--to", "no/where/a.pt2"], UserError, "there is no folder no/where"),
    (["DIGITS", "AuxResNet-20-2", "--to", "a.pt2"], UserError, "no exit files of DIGITS-AuxResNet-20-2"),
    (["DIGITS", "exit-5.safetensors", "--to", "a.pt2"], UserError, "exit-5.safetensors cannot be read"),
]


@pytest.mark.parametrize(("words", "kind", "text"), MISTAKES, ids=lambda value: str(value)[:40])
def test_mistakes_are_told(finished, words, kind, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=text) as raised:
        export.main([*words, "--save", str(finished[0])])
    assert type(raised.value) is kind
    assert not list(tmp_path.iterdir())


def test_eight_bits_need_training_pictures(finished, tmp_path):
    write_pictures(tmp_path / "tested" / "test", {"cat": 2, "dog": 2})
    words = ("tested", finished[1], "--int8")
    assert_one_line_error(
        script("export.py", *words), 2, "--int8 measures ranges on training pictures, and tested has no"
    )


def test_what_is_not_compared_on_pictures_needs_none(finished, tmp_path):
    words = ("no/such/folder", finished[1], "--to", tmp_path / "a.pt2")
    assert_one_line_error(script("export.py", *words), 2, "no/such/folder is neither", "--check 0")
    process = script("export.py", *words, "--check", 0)
    assert process.returncode == 0, process.stderr
    assert "256 pictures of noise" in process.stdout


def test_a_mistake_is_one_line(tmp_path):
    assert_one_line_error(script("export.py", "DIGITS", NAME, "--to", "a.bin"), 2, "export.py: error: ", "a.bin")
    process = script("export.py", "DIGITS", NAME, "--to", tmp_path, "--save", tmp_path)
    assert_one_line_error(process, 2, "is not the name of a .onnx")


def test_missing_packages_are_named_and_nothing_else_needs_them(finished, tmp_path):
    """Where none of the optional packages can be imported."""
    code = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] in ('onnx', 'onnxscript', 'onnxruntime', 'onnx_ir'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "import importlib.util, runpy\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *a: None if n.startswith('onnx') else real(n, *a)\n"
        "program, *sys.argv[1:] = sys.argv[1:]\n"
        "runpy.run_path(program, run_name='__main__')\n"
    )
    name, plot = finished[1], PROJECT / "docs" / "tradeoff.png"

    def without(*words):
        command = [sys.executable, "-c", code, *map(str, words)]
        return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)

    missing = "ONNX needs {}; pip install -r requirements-export.txt"
    every = missing.format("onnx, onnxscript, onnxruntime")
    assert_one_line_error(without("export.py", "DIGITS", name, "--to", tmp_path / "a.onnx"), 1, every)
    assert_one_line_error(without("predict.py", tmp_path / "a.onnx", plot), 1, missing.format("onnxruntime"))
    process = without("export.py", "DIGITS", name, "--to", tmp_path / "a.pt2", "--check", 20)
    assert process.returncode == 0, process.stderr
    assert without("predict.py", tmp_path / "a.pt2", plot).returncode == 0
