"""The page about a run: made from its exit files alone; what it says works."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

import opts
from datasets import digits
from formats import exit_file
from programs import PROJECT, script
from reports import page
from runs import SMALL, exit_files


def test_the_page_of_a_run_is_made_from_its_exit_files_alone(finished, tmp_path):
    save, folder, _ = finished
    text = (folder / "README.md").read_text()
    for path in exit_files(folder):
        shutil.copy(folder / path, tmp_path)
    assert page.of_run(exit_file.files_in(tmp_path)) == text
    assert str(save) not in text
    assert text.startswith("# AuxResNet-14-3 on DIGITS\n")
    for part in ("| 14 |", "CC BY 4.0", "arXiv 1611.01773", "test error", exit_file.PROGRAM):
        assert part in text


@pytest.mark.slow
def test_the_page_says_how_to_use_the_run(finished, tmp_path):
    """Its code and its commands do as they stand there, once the paths are put in."""
    Image.fromarray(digits.load(Path(), "test").images[0].numpy()).save(tmp_path / "picture.png")
    text = (finished[1] / "README.md").read_text().replace("path/to/AuxResNet", str(PROJECT))
    text = text.replace("path/to/DIGITS-AuxResNet-14-3", str(finished[1]))
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    test, predict = (line.split()[1:] for line in text.splitlines() if re.match(r"python (test|predict)\.py", line))
    assert "exit-9.safetensors" in script(*test).stdout
    name, probability = script(*predict[:-1], tmp_path / "picture.png").stdout.split()[-2:]
    assert ast.literal_eval(process.stdout) == [(name, pytest.approx(float(probability), abs=1e-4))]


def test_what_its_command_leaves_out_is_on_the_page(finished, tmp_path):
    path = finished[1] / "exit-14.safetensors"
    header = exit_file.read_header(path)
    assert (header["shares"], header["extended"], header["origin"]) == (1, [], [])
    assert not re.search("divided|begun|began", page.of_run({14: path}))
    first = {"run": "birds-ResNet", "dataset": "birds\n", "epochs": 7, "heldOut": "0" * 64}
    origin = [first, {"run": "bees\n", "dataset": "B", "epochs": 1, "heldOut": None}]
    told = {"shares": 4, "extended": [2, 3], "origin": origin}
    (tmp_path / path.name).write_bytes(exit_file.content(load_file(path), {**header, **told}))
    text = "It began with the weights of bees�, trained for 7 epochs on birds�, then 1 epoch on B. "
    assert text in page.of_run({14: tmp_path / path.name})
    assert "It was begun for 2, then 3 and given more later" in page.of_run({14: tmp_path / path.name})
    assert "At its end each batch was divided among 4 processes or GPUs." in page.of_run({14: tmp_path / path.name})


def test_the_command_on_the_page_is_the_one_that_trained(finished):
    text = (finished[1] / "README.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("python main.py")]
    assert line == "python main.py --data DIGITS --trainSize 256 --depth 14 --nOutputs 3 --nEpochs 2"
    given = opts.parse([*SMALL, "--nEpochs", "2"])
    assert opts.shaping(opts.parse(line.split()[2:])) == opts.shaping(given)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--depth 56 --nOutputs 5 --recipe fast --nEpochs 60 --precision bf16 --compile true",
        "--data DIGITS --widen 2 --nEpochs 400 --batchsize 128 --manualSeed 3",
        "--depth 56 --exits 15,35,56 --exitWeights 0.5,1,1 --dropout --shortcutType B --valSize 500",
        "--recipe fast --decayNorms true --cutout 8 --data SVHN --svhnExtra false",
    ],
)
def test_any_command_comes_back_from_the_options_that_it_shaped(line):
    shaping = opts.shaping(opts.parse(line.split()))
    shaped = json.loads(json.dumps(shaping))
    command = opts.command(shaped)
    assert opts.command(shaping) == command
    assert json.loads(json.dumps(opts.shaping(opts.parse(command.split()[2:])))) == shaped
    assert len(command.split()) <= 2 + len(line.split()) + 1  # --dropout gets its value


def test_a_folder_of_pictures_is_named_without_its_path():
    assert opts.command({"data": "my pets", "nEpochs": 9, "unknown": 1}) == (
        "python main.py --data 'path/to/my pets' --nEpochs 9"
    )


def test_the_page_says_what_was_held_out_and_whose_the_pictures_are(finished, tmp_path):
    path = tmp_path / "exit-14.safetensors"
    source = finished[1] / path.name
    header = exit_file.read_header(source)
    header |= {"dataset": "pets\n#", "errorOn": "validation", "classes": [f"c{n}" for n in range(30)]}
    header["options"] |= {"valSize": 500, "data": "pets\n#"}
    path.write_bytes(exit_file.content(load_file(source), header))
    text = page.of_run({14: path})
    for part in (
        "on pets�#\n",
        "validation error",
        "500 held-out",
        "c19, …",
        "$'path/to/pets\\x0a#'",
        "A folder of pictures",
    ):
        assert part in text
    assert "\n#\n" not in text
