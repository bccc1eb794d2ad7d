"""The programs as a user runs them: what they print, what they leave, and what they say to mistakes."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from formats import exit_file, log_file
from inference import saved
from models.networks import build
from programs import PROJECT, assert_one_line_error, error_line, rows_of, script
from runs import EXITS, NAME, SMALL

pytestmark = pytest.mark.slow

PROGRAMS = ["main.py", "test.py", "plot.py", "predict.py", "export.py", "calibrate.py"]


def test_a_run_leaves_its_files(finished):
    _, folder, output = finished
    names = {path.name for path in folder.iterdir()}
    exits = {f"exit-{position}.safetensors" for position in EXITS}
    assert names == exits | {"latest.pt", "previous.pt", "opt.json", "log.csv", "curves.png", "README.md"}
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((folder / "log.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 <= float(row[f"test_error_{p}"]) <= 100 for row in rows for p in EXITS)
    assert json.loads((folder / "opt.json").read_text())["depth"] == 14
    assert len([line for line in output.splitlines() if line.startswith("epoch ")]) == 2
    assert "\r" not in output


def test_a_run_learns(validated):
    """After four epochs it knows most pictures that it has not seen; by chance it would know a tenth."""
    last = log_file.read(validated[1])[-1]
    assert last["validation_error_9"] < 60
    assert last["validation_error_14"] < 30


def test_exit_files_carry_what_is_needed_to_rebuild_and_judge_them(finished):
    _, folder, _ = finished
    for position in EXITS:
        weights = load_file(folder / f"exit-{position}.safetensors")
        header = exit_file.read_header(folder / f"exit-{position}.safetensors")
        assert (header["name"], header["position"], header["dataset"]) == (NAME, position, "DIGITS")
        assert header["classes"] == [str(digit) for digit in range(10)]
        assert header["network"]["exits"] == list(EXITS)
        assert (header["input"], len(header["mean"]), len(header["std"])) == ([3, 32, 32], 3, 3)
        assert (header["epochs"], header["errorOn"], header["options"]["depth"]) == (2, "test", 14)
        assert {name.split(".")[1] for name in weights if name.startswith("heads.")} == {str(position)}


def test_test_py_prints_what_training_printed(finished):
    save, folder, output = finished
    shallowest, _, deepest = rows_of(output)
    last = script("test.py", "digits", NAME, "--save", save)
    assert last.returncode == 0
    assert last.stdout == error_line(deepest["test error"])
    shallow = script("test.py", "DIGITS", NAME, "--save", save, "--exit", "5")
    by_path = script("test.py", "DIGITS", folder / "exit-5.safetensors")
    assert shallow.stdout == by_path.stdout == error_line(shallowest["test error"])


def test_exit_all_has_the_numbers_of_training(finished):
    save, folder, output = finished
    printed = script("test.py", "DIGITS", NAME, "--save", save, "--exit", "all").stdout
    subject, place, *_ = printed.splitlines()
    assert subject.startswith(f"{NAME} on DIGITS: 360 test pictures; timed on CPU, ")
    assert place == f"folder: {folder}/"
    for found, trained in zip(rows_of(printed), rows_of(output), strict=True):
        titles = {"exit": "exit", "parameters": "parameters", "MACs": "multiply-adds", "error": "test error"}
        assert {titles[title]: found[title] for title in titles} == {name: trained[name] for name in titles.values()}
        assert found["file"] == Path(trained["file"]).name


def test_an_exit_is_read_from_its_own_file_alone(finished, tmp_path):
    _, folder, _ = finished
    run = tmp_path / folder.name
    run.mkdir()
    (run / "exit-5.safetensors").write_bytes((folder / "exit-5.safetensors").read_bytes())
    (run / "exit-14.safetensors").write_bytes(b"damaged")
    assert script("test.py", "DIGITS", NAME, "--save", tmp_path, "--exit", "5").stdout.startswith("error ")
    broken = script("test.py", "DIGITS", NAME, "--save", tmp_path)
    assert_one_line_error(broken, 1, "exit-14.safetensors")


def test_exit_files_give_the_bits_of_the_whole_network(finished, tested):
    _, folder, _ = finished
    files = exit_file.files_in(folder)
    state = torch.load(folder / "latest.pt", weights_only=True)
    model = saved.load(files)
    network = build(model.configuration, 10)
    network.load_state_dict(state["network"])
    network.eval()
    images = model.normalise(tested.images)
    with torch.inference_mode():
        expected = network(images)
        assert all(a.equal(b) for a, b in zip(model.network(images), expected, strict=True))
        for (position, path), logits in zip(files.items(), expected, strict=True):
            assert saved.load({position: path}).network(images)[0].equal(logits)


def test_files_of_different_runs_are_not_mixed(finished, tmp_path):
    _, folder, _ = finished
    paths = {position: tmp_path / f"exit-{position}.safetensors" for position in (5, 14)}
    for position, path in paths.items():
        weights, header = load_file(folder / path.name), exit_file.read_header(folder / path.name)
        if position == 5:
            weights["stem.weight"] += 1
        path.write_bytes(exit_file.content(weights, header))
    with pytest.raises(ValueError, match="another run or epoch"):
        saved.load(paths)
    with pytest.raises(ValueError, match=r"holds exit 5; name it exit-5\.safetensors"):
        saved.load({9: paths[5].rename(tmp_path / "exit-9.safetensors")})


def test_foreign_safetensors_are_refused(finished, tmp_path):
    _, folder, _ = finished
    foreign = tmp_path / "exit-5.safetensors"
    save_file(load_file(folder / "exit-5.safetensors"), foreign)
    assert_one_line_error(script("test.py", "DIGITS", foreign), 1, str(foreign), "not the model of an exit")


def test_mistakes_of_test_py(finished, tmp_path):
    save, folder, _ = finished
    assert_one_line_error(
        script("test.py", "CIFAR10", NAME, "--save", save), 1, "CIFAR10-AuxResNet-14-3", "DIGITS-AuxResNet-14-3"
    )
    assert_one_line_error(script("test.py", "DIGITS", NAME, "--save", save, "--exit", "7"), 1, "5, 9, 14")
    assert_one_line_error(script("test.py", "DIGITS", "AuxNet-14"), 2, "AuxNet-14", "AuxResNet-<depth>")
    assert_one_line_error(script("test.py", "DIGITS"), 2, "model")
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "1.png").write_bytes((folder / "curves.png").read_bytes())
    process = script("test.py", tmp_path, folder / "exit-5.safetensors")
    assert_one_line_error(process, 1, "2 classes (a, b)", "DIGITS", "10 classes (0, 1, 2 and 7 more)")


def test_mistakes_of_main_py(finished, tmp_path):
    save, folder, _ = finished
    again = script("main.py", *SMALL, "--save", save)
    assert_one_line_error(again, 1, str(folder), "--resume", "rename")
    assert_one_line_error(script("main.py", "--data", "DIGITS", "--save", tmp_path, "--nGPU", "64"), 1, "64", "GPUs")
    assert_one_line_error(script("main.py", "--depth", "57"), 2, "57", "6n+2", "56")
    assert_one_line_error(script("main.py", "--depth", "56", "--exits", "16,56"), 2, "16", "15, 17")
    assert_one_line_error(script("main.py", "--exitWeights", "1,1,1"), 2, "exitWeights", "19, 26")
    assert_one_line_error(script("main.py", *SMALL, "--resume", "--save", folder), 1, "nothing to resume")
    assert_one_line_error(script("main.py", "--resume", save), 1, f"{save} is not the folder of a run: opt.json")
    assert_one_line_error(script("main.py", "--resume", folder, "--save", tmp_path), 2, "leave that out")
    (tmp_path / folder.name).mkdir()
    shutil.copy(folder / "exit-5.safetensors", tmp_path / folder.name)
    for resume, told in (([], "holds a run without latest.pt, which"), (["--resume"], "has no latest.pt, so its run")):
        without = script("main.py", *SMALL, "--save", tmp_path, *resume)
        assert_one_line_error(without, 1, f"{told} cannot go on")
    contradiction = script("main.py", *SMALL, "--nEpochs", "2", "--save", save, "--resume", "--LR", "0.3")
    assert_one_line_error(contradiction, 1, "LR is 0.3, was 0.1")


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_older_python_is_told(name):
    older = "sys.version_info = (3, 9, 0, 'final', 0)"
    code = f"import runpy, sys; {older}; runpy.run_path('{name}', run_name='__main__')"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT)
    assert re.fullmatch(r"AuxResNet needs Python 3\.11 or newer; this is \S+\n", process.stderr)
    assert process.returncode == 1


@pytest.mark.parametrize("name", PROGRAMS)
def test_ctrl_c_is_no_traceback(name):
    """While the program reads its command line, which all of them do alike."""
    code = f"""
import argparse, runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start without it
argparse.ArgumentParser.parse_known_args = lambda *_, **__: signal.raise_signal(signal.SIGINT)
runpy.run_path('{name}', run_name='__main__')
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT)
    assert (process.returncode, process.stdout, process.stderr) == (130, "", f"{name}: interrupted\n")


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_and_mistakes_need_no_torch(name):
    code = f"""
import runpy, sys
sys.argv = ['{name}', *sys.argv[1:]]
try:
    runpy.run_path('{name}', run_name='__main__')
except SystemExit as stop:
    print('status', stop.code, 'torch' in sys.modules)
"""
    for arguments, status in ((["--help"], 0), (["--out=", "--nGPU=x"], 2)):
        process = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=PROJECT, timeout=60
        )
        assert process.stdout.endswith(f"status {status} False\n")
