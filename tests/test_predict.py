"""Classes of a user's own pictures: what is printed, in which forms, and what is said to mistakes."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import predict
from examples import answers_of
from formats import exit_file
from inference import prediction
from programs import PROJECT, assert_one_line_error, begin, children, outliving, script
from runs import NAME
from system.errors import UsageError, UserError

pytestmark = pytest.mark.slow

COUNT = 12
CLASSES = tuple("0123456789")


@pytest.fixture(scope="module")
def pictures(tested, tmp_path_factory):
    """The first test pictures of DIGITS as PNG files, some of them in a folder below."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "below").mkdir()
    for index in range(COUNT):
        place = folder / "below" if index < 3 else folder
        Image.fromarray(tested.images[index].numpy()).save(place / f"{index:02}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def told(finished, capsys):
    """Runs the program on the CPU with the finished run's folder as --save; returns what it prints."""

    def run(*words):
        capsys.readouterr()
        predict.main([*map(str, words), "--save", str(finished[0]), "--nGPU", "0"])
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("position", [5, 14])
def test_the_classes_are_those_of_the_exit_file(told, finished, tested, pictures, position):
    rows = csv.DictReader(io.StringIO(told(NAME, pictures, "--exit", position, "--top", 3, "--format", "csv")))
    probabilities, classes = answers_of(finished[1], tested.images[:COUNT], position).topk(3)
    for row in rows:
        index, rank = int(Path(row["path"]).stem), int(row["rank"]) - 1
        assert row["class"] == str(int(classes[index, rank]))
        assert float(row["probability"]) == pytest.approx(float(probabilities[index, rank]), abs=1e-4)
    assert rows.line_num == 1 + 3 * COUNT


def test_text_has_a_line_for_each_picture_in_order(told, pictures):
    lines = told(NAME, pictures / "05.png", pictures).splitlines()
    first = [str(pictures / "05.png")]
    above = [str(pictures / f"{index:02}.png") for index in range(3, COUNT)]
    below = [str(pictures / "below" / f"{index:02}.png") for index in range(3)]
    assert [line.split("  ")[0] for line in lines] == [*first, *above, *below]
    name, probability = lines[0].split("  ")[1].split()
    assert name in CLASSES
    assert 0.1 <= float(probability) <= 1


def test_json_is_one_array(told, pictures):
    answers = json.loads(told(NAME, pictures, "--format", "JSON", "--top", 99))
    assert len(answers) == COUNT
    for answer in answers:
        values = [found["probability"] for found in answer["classes"]]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1, abs=1e-4)
        assert {found["class"] for found in answer["classes"]} == set(CLASSES)


def test_a_model_is_named_in_every_way(told, finished, pictures):
    _, folder, _ = finished
    by_name = told(NAME, pictures)
    for model in (folder.name, folder, folder / "exit-14.safetensors"):
        assert told(model, pictures) == by_name


@pytest.mark.parametrize("more", ["--precision bf16", "--precision auto", "--cpuThreads 2"])
def test_other_arithmetic_answers_alike(more, told, pictures):
    lines = [told(NAME, pictures, "--format", "json", "--top", 10, *words.split()) for words in ("", more)]
    if "bf16" in more:
        assert lines[0] != lines[1]  # it rounds
    if "--cpuThreads" in more:
        assert torch.get_num_threads() == 2
    for usual, found in zip(*map(json.loads, lines), strict=True):
        first, second = ({c["class"]: c["probability"] for c in answer["classes"]} for answer in (usual, found))
        assert first == pytest.approx(second, abs=0.05)


def test_a_policy_answers_in_the_precision_asked_for(told, early_policy, pictures):
    line = (NAME, pictures, "--format", "json", "--policy", early_policy[1])
    assert told(*line) != told(*line, "--precision", "bf16")


def test_a_name_that_several_data_sets_have_is_asked_back(finished, pictures, tmp_path):
    for data in ("CIFAR10", "my-pictures"):
        (tmp_path / f"{data}-{NAME}").symlink_to(finished[1])
    with pytest.raises(UserError, match=f"several data sets; give one of CIFAR10-{NAME}, my-pictures-{NAME}"):
        predict.main([NAME, str(pictures), "--save", str(tmp_path)])


def test_the_brackets_of_a_data_set_are_no_pattern(finished, pictures, tmp_path):
    (tmp_path / f"my1-{NAME}").symlink_to(finished[1])
    with pytest.raises(UserError, match=rf"no exit files of my\[1\]-{NAME} in"):
        predict.main([f"my[1]-{NAME}", str(pictures), "--save", str(tmp_path)])


def test_a_name_breaks_no_line_of_a_terminal(finished, pictures, tmp_path, monkeypatch, capsys):
    place = tmp_path / "x\rcat  dog 0.99\n.png"
    shutil.copy(pictures / "03.png", place)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    predict.main([str(finished[1]), str(place), "--nGPU", "0"])
    (line,) = capsys.readouterr().out.split("\n")[:-1]
    assert line.startswith(f"{tmp_path}/x�cat  dog 0.99�.png  ")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_standard_input_lists_paths(encoding, pictures, monkeypatch, told):
    paths = [pictures / "03.png", pictures / "below"]
    listed = "\n".join(map(str, [*paths, ""])).encode(encoding)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed)))
    assert told(NAME, "-") == told(NAME, *paths)


def test_names_that_are_listed_are_bytes(pictures, monkeypatch, tmp_path, told):
    place = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\r\xe4.png")
    shutil.copy(pictures / "03.png", place)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(os.fsencode(place)), encoding="ascii"))
    told(NAME, "-", "--out", tmp_path / "list")
    told(NAME, place, "--out", tmp_path / "name")
    assert (tmp_path / "list").read_bytes() == (tmp_path / "name").read_bytes()


def test_a_closed_standard_input_is_told(finished, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)  # as Python has it then
    with pytest.raises(UserError, match="standard input, which is closed"):
        predict.main([NAME, "-", "--save", str(finished[0])])


def test_a_path_is_printed_as_the_system_has_it(finished, pictures, tmp_path):
    odd = os.fsencode(tmp_path) + b"/\xff\xe4.png"
    Path(os.fsdecode(odd)).write_bytes((pictures / "03.png").read_bytes())
    for form in ("text", "csv", "json"):
        target = tmp_path / form
        predict.main([str(finished[1]), os.fsdecode(odd), "--nGPU", "0", "--out", str(target), "--format", form])
        assert (b"\xff" in target.read_bytes()) == (form != "json")
    assert json.loads((tmp_path / "json").read_text())[0]["path"] == os.fsdecode(odd)


def renamed(folder, names, target):
    """The first exit's file of a run, with these names for its first classes."""
    header = exit_file.read_header(folder / "exit-5.safetensors")
    header["classes"] = [*names, *header["classes"][len(names) :]]
    target.mkdir()
    (target / "exit-5.safetensors").write_bytes(exit_file.content(load_file(folder / "exit-5.safetensors"), header))
    return target / "exit-5.safetensors"


def test_rows_hold_together_whatever_is_in_a_path_or_a_class(finished, pictures, tmp_path):
    names = ["a\rb", "\r", 'c,"d"\r\n', " e\n", "f\udcff"]
    path, target = tmp_path / 'x\ry,"z".png', tmp_path / "classes.csv"
    shutil.copy(pictures / "03.png", path)
    model = renamed(finished[1], names, tmp_path / "model")
    predict.main([str(model), str(path), "--top", "10", "--nGPU", "0", "--out", str(target)])
    with target.open(newline="", errors="surrogateescape") as file:
        _, *rows = csv.reader(file)
    assert [row[:2] for row in rows] == [[str(path), str(rank)] for rank in range(1, 11)]
    assert {row[2] for row in rows} == {*names, *"56789"}


def test_a_class_that_no_file_can_have_is_refused(finished, pictures, tmp_path):
    model = renamed(finished[1], ["\ud800"], tmp_path / "model")
    process = script("predict.py", model, pictures / "03.png", "--format", "csv", "--nGPU", 0)
    assert_one_line_error(process, 1, f"{model}: ", "classes is not 1 to 100,000 different names that can be written")


def test_what_cannot_be_read_is_named_and_passed_over(finished, pictures, tmp_path):
    (tmp_path / "broken.png").write_bytes((pictures / "03.png").read_bytes()[:60])
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "whole.png").write_bytes((pictures / "03.png").read_bytes())
    process = script("predict.py", finished[1], tmp_path, tmp_path / "missing.png", "--nGPU", 0)
    assert process.returncode == 1
    assert process.stdout.startswith(f"{tmp_path / 'whole.png'}  ")
    assert len(process.stdout.splitlines()) == 1
    *named, last = process.stderr.splitlines()
    assert [Path(line.split()[1]).name for line in named] == ["broken.png", "pipe.png", "missing.png"]
    assert last == "predict.py: error: 3 of 4 pictures could not be read"


def test_ctrl_c_ends_it_and_its_decoders_while_pictures_are_read(finished, pictures, tmp_path):
    (tmp_path / "list.txt").write_text(f"{pictures / '03.png'}\n" * 500_000)
    command = [sys.executable, PROJECT / "predict.py", finished[1], "-", "--nGPU", "0", "--out", tmp_path / "out.csv"]
    with (tmp_path / "list.txt").open() as listed:
        process = begin(command, stdin=listed, stdout=subprocess.PIPE, start_new_session=True)
    while not (started := children(process.pid)):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)  # when none of them is left to write
    assert (process.returncode, output, errors) == (130, "", "predict.py: interrupted\n")
    assert not outliving(started)  # those that it could not wait for are dead until the system takes note
    assert [path.name for path in tmp_path.iterdir()] == ["list.txt"]


def test_more_pictures_than_a_batch_are_all_answered_in_order(told, pictures, monkeypatch):
    whole, batches = told(NAME, pictures), []
    monkeypatch.setattr("inference.evaluation.batch_size", lambda side: batches.append(side) or 2)
    in_pairs = told(NAME, pictures)
    assert batches
    assert len(whole.splitlines()) > 2 * (prediction.AHEAD + 1)
    assert [line.split()[:2] for line in in_pairs.splitlines()] == [line.split()[:2] for line in whole.splitlines()]


def test_the_name_of_the_file_names_the_format(told, pictures, tmp_path):
    for name, form in (("classes.CSV", "csv"), ("classes.json", "json"), ("classes.tsv", "text"), ("classes", "text")):
        told(NAME, pictures, "--out", tmp_path / name)
        assert (tmp_path / name).read_text() == told(NAME, pictures, "--format", form)


def test_out_is_written_whole_and_nothing_is_printed(told, pictures, tmp_path):
    assert told(NAME, pictures, "--out", tmp_path / "classes.txt") == ""
    assert (tmp_path / "classes.txt").read_text() == told(NAME, pictures)


def test_a_reader_that_stops_reading_is_no_error(finished, pictures):
    line = f'"{sys.executable}" predict.py "{finished[1]}" "{pictures}" --nGPU 0 | head -0; exit ${{PIPESTATUS[0]}}'
    process = subprocess.run(["bash", "-c", line], cwd=PROJECT, capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (1, "", "")


MISTAKES = [
    (["AuxResNet-99999-3", "x.png"], UsageError, "depth 99999"),
    (["nothing", "x.png"], UsageError, "'nothing' is neither a network's name nor the path"),
    (["model.pth", "x.png"], UsageError, "'model.pth' is neither"),
    ([NAME], UsageError, "PICTURE"),
    ([NAME, "x.png", "--top", "0"], UsageError, "--top"),
    ([NAME, "x.png", "--format", "xml"], UsageError, "--format"),
    ([NAME, "x.png", "--exit", "all"], UsageError, "--exit"),
    (["model.onnx", "x.png", "--precision", "bf16"], UsageError, "--precision bf16: model.onnx"),
    ([NAME, "x.png", "--exit", "5", "--policy", "policy.json"], UsageError, "--policy excludes --exit 5"),
    (["model.onnx", "x.png", "--nGPU", "1"], UsageError, "model.onnx runs on the CPU"),
    (["model.pt2", "x.png", "--nGPU", "2"], UsageError, "model.pt2 is for one device, --nGPU is 2"),
    (["model.onnx", "x.png", "--policy", "policy.json"], UsageError, "model.onnx has its policy in it, or none"),
    ([NAME, "x.png", "--policy", "none.json"], UserError, "none.json cannot be read"),
    ([NAME, "x.png", "--exit", "7"], UserError, "no exit 7 in .*; there are: 5, 9, 14"),
    (["AuxResNet-20-2", "x.png"], UserError, "no exit files of AuxResNet-20-2 in"),
    (["CIFAR10-AuxResNet-20-2", "x.png"], UserError, "no exit files of CIFAR10-AuxResNet-20-2 in"),
    (["missing.pt2", "x.png"], UserError, "missing.pt2 cannot be read"),
    (["run/exit-5.safetensors", "x.png"], UserError, "run/exit-5.safetensors cannot be read"),
    ([NAME, "x.png", "--policy", "p.json", "--nGPU", "2"], UsageError, "--policy is for one device"),
    ([NAME, "x.png", "--out", "no/where.txt"], UserError, "no/where.txt cannot be written"),
    ([NAME, "x.png", "--out", "/dev/null"], UserError, "/dev/null is no regular file"),
    ([NAME, "models"], UserError, "no pictures in models; their names end in .jpg"),
]


@pytest.mark.parametrize(("words", "kind", "text"), MISTAKES, ids=lambda value: str(value)[:40])
def test_mistakes_are_told(finished, words, kind, text, monkeypatch):
    monkeypatch.chdir(PROJECT)
    with pytest.raises(kind, match=text) as raised:
        predict.main([*words, "--save", str(finished[0])])
    assert type(raised.value) is kind


def test_an_empty_list_has_no_pictures(finished, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    with pytest.raises(UserError, match="no pictures are given"):
        predict.main([NAME, "-", "--save", str(finished[0])])


def test_a_mistake_is_one_line(tmp_path):
    assert_one_line_error(script("predict.py", "nothing", "x.png"), 2, "predict.py: error: 'nothing'")
    assert_one_line_error(script("predict.py", tmp_path / "a.pt2", PROJECT / "docs"), 1, "a.pt2 cannot be read")


@pytest.mark.parametrize("name", ["a.png", "A.JPG", "x.gif", "exit-14.safetensors", "m.onnx", "m.pt2", "latest.pt", ""])
def test_answers_are_not_written_over_pictures_and_networks(name):
    with pytest.raises(UsageError, match=r"--out: .*(would be a [A-Z0-9]+ file; give one such as classes\.csv|empty)"):
        predict.main(["nowhere", "a.png", "--out", name])


def test_answers_are_not_written_over_a_picture_of_any_name(finished, pictures, tmp_path):
    shutil.copy(pictures / "03.png", tmp_path / "picture")
    before = (tmp_path / "picture").read_bytes()
    with pytest.raises(UserError, match="picture is one of the pictures, or the list of them; give another file"):
        predict.main([str(finished[1]), str(tmp_path / "picture"), "--out", str(tmp_path / "." / "picture")])
    assert (tmp_path / "picture").read_bytes() == before


def test_answers_are_not_written_over_the_list_of_pictures(finished, pictures, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{pictures / '03.png'}\n")
    line = [sys.executable, "predict.py", str(finished[1]), "-", "--out", str(listed)]
    with listed.open() as file:
        process = subprocess.run(line, cwd=PROJECT, stdin=file, capture_output=True, text=True)
    assert_one_line_error(process, 1, "list.txt is one of the pictures, or the list of them; give another file")
    assert listed.read_text() == f"{pictures / '03.png'}\n"


def test_a_variable_that_is_not_set_names_no_pictures(finished):
    for line in ([str(finished[1]), ""], ["", "a.png"], [str(finished[1]), "a.png", "--policy", ""]):
        with pytest.raises(UsageError, match="'' is empty; give a name or a path"):
            predict.main(line)


def test_lists_of_windows_are_read(pictures, monkeypatch, told):
    listed = f"{pictures / '03.png'}\r\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed), newline="\n"))
    assert told(NAME, "-") == told(NAME, pictures / "03.png")
