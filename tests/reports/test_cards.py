"""Cards: a table that fits a terminal, JSON that reads back, a page about a run that is made from its files alone."""

import ast
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import PROJECT, SMALL, exit_files, script, signal_during
from PIL import Image
from safetensors.torch import load_file

import checkpoints
import main
import opts
from datasets import digits
from reports import cards
from reports.cards import Card, ExitCard, exit_card, pareto
from training.trainer import Trainer

EXIT = ExitCard(
    position=164,
    file="exit-164.safetensors",
    parameters=36_536_884,
    file_bytes=145_999_999,
    macs=5_243_810_000,
    error_percent=100.0,
    top5_error_percent=99.99,
    calibration_error_percent=88.88,
    failure_auroc=0.98765,
    latency_median_ms=99.94,
    latency_p95_ms=234.567,
    pictures_per_second=12_345.6,
    pareto_optimal=True,
)
CARD = Card("AuxResNet-26-2/10", "CIFAR100", 10_000, 100, False, "float", "CPU", 2, (EXIT, EXIT))


def test_the_table_fits_a_terminal_even_with_large_numbers():
    lines = exit_card(CARD, Path("runs/CIFAR100-AuxResNet-26-2-w10")).splitlines()
    assert lines[0] == "AuxResNet-26-2/10 on CIFAR100: 10,000 test pictures; timed on CPU, 2 threads, float"
    assert lines[1:3] == ["folder: runs/CIFAR100-AuxResNet-26-2-w10/", ""]
    assert max(map(len, lines)) <= 120
    assert lines[-1] == (
        " 164      36.5 M  146 MB  5.24 G  100.00 %  99.99 %  88.88 %  0.988  99.9     235  12,346     yes"
        "  exit-164.safetensors"
    )


def test_what_a_network_has_not_is_left_out_or_said():
    few = replace(EXIT, top5_error_percent=None, failure_auroc=None, pareto_optimal=False)
    title, _, row = exit_card(replace(CARD, classes=5, mirror=True, exits=(few,)), Path("/x")).splitlines()[3:]
    assert "top-5" not in title
    assert row.split()[9:12] == ["88.88", "%", "none"]
    assert row.split()[-2] == "no"
    assert "each with its mirror image" in exit_card(replace(CARD, mirror=True), Path("/x"))


def test_a_folder_below_is_shown_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "\nfolder: runs/a/\n" in exit_card(CARD, tmp_path / "runs" / "a")
    assert "\nfolder: /elsewhere/a/\n" in exit_card(CARD, Path("/elsewhere/a"))


def test_json_holds_every_field_with_its_unit():
    read = json.loads(cards.as_json(CARD))
    assert ExitCard(**read["exits"][0]) == EXIT
    assert read["network"] == "AuxResNet-26-2/10"
    assert (read["threads"], read["mirror"]) == (2, False)


@pytest.mark.parametrize(
    ("points", "optimal"),
    [
        ([(1, 9), (2, 5), (3, 5), (4, 1)], [True, True, False, True]),
        ([(1, 5), (2, 6), (3, 4)], [True, False, True]),
        ([(1, 5), (1, 5)], [True, True]),  # one is as good as the other
        ([(1, 5), (1, 4)], [False, True]),
        ([(3, 1)], [True]),
        ([], []),
    ],
)
def test_what_is_pareto_optimal(points, optimal):
    assert pareto(points) == optimal


def test_classes_come_worst_first_and_say_what_they_are_taken_for():
    confusion = [{0: 9, 1: 1}, {1: 4, 2: 4}, {2: 5}, {}]
    text = cards.class_table(confusion, ["ant", "bee", "cat", "none"])
    assert [line.split() for line in text.splitlines()[2:]] == [
        ["bee", "8", "50.00", "%", "cat", "(4)"],
        ["ant", "10", "10.00", "%", "bee", "(1)"],
        ["cat", "5", "0.00", "%"],
        ["none", "0", "no", "pictures"],
    ]
    assert "only" in cards.class_table([{0: 3}], ["only"])


def test_the_page_of_a_run_is_made_from_its_exit_files_alone(finished, tmp_path):
    save, folder, _ = finished
    page = (folder / "README.md").read_text()
    for path in exit_files(folder):
        shutil.copy(folder / path, tmp_path)
    assert cards.run_card(checkpoints.exit_files(tmp_path)) == page
    assert str(save) not in page
    assert page.startswith("# AuxResNet-14-3 on DIGITS\n")
    for text in ("| 14 |", "CC BY 4.0", "arXiv 1611.01773", "test error", f"AuxResNet {checkpoints.VERSION}"):
        assert text in page


@pytest.mark.slow
def test_the_page_says_how_to_use_the_run(finished, tmp_path):
    """Its code and its commands do as they stand there, once the paths are put in."""
    Image.fromarray(digits.load(Path(), "test").images[0].numpy()).save(tmp_path / "picture.png")
    page = (finished[1] / "README.md").read_text().replace("path/to/AuxResNet", str(PROJECT))
    page = page.replace("path/to/DIGITS-AuxResNet-14-3", str(finished[1]))
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    test, predict = (line.split()[1:] for line in page.splitlines() if re.match(r"python (test|predict)\.py", line))
    assert "exit-9.safetensors" in script(*test).stdout
    name, probability = script(*predict[:-1], tmp_path / "picture.png").stdout.split()[-2:]
    assert ast.literal_eval(process.stdout) == [(name, pytest.approx(float(probability), abs=1e-4))]


def test_the_command_on_the_page_is_the_one_that_trained(finished):
    page = (finished[1] / "README.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("python main.py")]
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


def test_an_interrupted_run_leaves_the_same_page(finished, tmp_path, monkeypatch):
    signal_during(monkeypatch, Trainer, "step", 5)
    with pytest.raises(SystemExit):
        main.main([*SMALL, "--nEpochs", "2", "--save", str(tmp_path)])
    monkeypatch.undo()
    folder = tmp_path / finished[1].name
    assert not (folder / "README.md").exists()
    main.main(["--resume", str(folder)])
    assert (folder / "README.md").read_bytes() == (finished[1] / "README.md").read_bytes()


def test_the_page_says_what_was_held_out_and_whose_the_pictures_are(finished, tmp_path):
    path = tmp_path / "exit-14.safetensors"
    source = finished[1] / path.name
    header = checkpoints.read_header(source)
    header |= {"dataset": "pets\n#", "errorOn": "validation", "classes": [f"c{n}" for n in range(30)]}
    header["options"] |= {"valSize": 500, "data": "pets\n#"}
    checkpoints.write_exit(path, load_file(source), header)
    page = cards.run_card({14: path})
    for text in (
        "on pets�#\n",
        "validation error",
        "500 held-out",
        "c19, …",
        "$'path/to/pets\\x0a#'",
        "A folder of pictures",
    ):
        assert text in page
    assert "\n#\n" not in page
