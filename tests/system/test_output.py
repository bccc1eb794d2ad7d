"""A run goes on, whatever becomes of the streams that it prints to."""

import argparse
import re
import shlex
import subprocess
import sys

import pytest

from examples import write_pictures
from programs import PROJECT, script
from runs import FOLDER, SMALL

pytestmark = pytest.mark.slow


def shell(line, cwd):
    command = shlex.join([sys.executable, str(PROJECT / "main.py"), *SMALL, "--nEpochs", "2", "--trainSize", "64"])
    line = line.replace("MAIN", command)
    return subprocess.run(["bash", "-c", line], cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("MAIN --save . | head -1; exit ${PIPESTATUS[0]}", ""),
        ("MAIN --save . >&-", ""),
        ("MAIN --save . 2>&-", ""),
        ("MAIN --save . >&- 2>&-", ""),
        ("MAIN --save . >/dev/full", "standard output: No space left on device; what is printed from here on is lost"),
    ],
)
def test_a_reader_that_goes_away_does_not_end_a_run(line, told, tmp_path):
    process = shell(line, tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stderr.strip() == told
    assert len((tmp_path / FOLDER / "log.csv").read_text().splitlines()) == 3


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path):
    process = shell("PYTHONIOENCODING=ascii:strict MAIN --save \u6f22", tmp_path)
    assert process.returncode == 0, process.stderr
    assert "\\u6f22/DIGITS" in process.stdout
    assert (tmp_path / "\u6f22" / FOLDER / "log.csv").exists()


WILD = "\x1b[2J\x9b31m\u202edog\r\x07"


def test_nothing_from_files_reaches_the_terminal_as_a_command_to_it(tmp_path):
    """Names of folders, classes, pictures and a network's data are full of escapes, and of no end."""
    pictures = tmp_path / f"pets{WILD}"
    for split in ("train", "test"):
        write_pictures(pictures / split, {"cat": 8, WILD: 8, "x" * 250: 8}, seed=len(split))
    line = ("--depth", "8", "--nGPU", "0", "--nEpochs", "1", "--save", tmp_path)
    printed = [script("main.py", "--data", pictures, *line)]
    folder = tmp_path / f"{pictures.name}-AuxResNet-8-2"
    printed += [
        script("test.py", pictures, folder, "--perClass", "--nGPU", "0"),
        script("test.py", pictures, folder, "--exit", "all", "--nGPU", "0"),
        script("plot.py", folder, "--out", tmp_path / "runs.png"),
    ]
    assert [process.returncode for process in printed] == [0] * 4, printed[-1].stderr
    told = script(
        "predict.py", folder, tmp_path / "no such picture\x1b[2J.png", next(pictures.rglob("*.png")), "--top=3"
    )
    assert told.stdout.count("\x1b") == 2  # of the folder, whose name is for other programs to read
    printed += [
        script("test.py", "DIGITS", folder),
        script("test.py", pictures, f"{folder}/exit-{WILD}.safetensors"),
        script("main.py", "--resume", folder, "--LR", "3"),
        argparse.Namespace(stdout="", stderr=told.stderr),
    ]
    assert [process.returncode for process in printed[4:7]] == [1, 1, 1]
    assert told.returncode == 1
    assert "is not named exit-" in printed[5].stderr
    for process in printed:
        assert re.fullmatch(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]*", process.stdout + process.stderr)
        assert max(map(len, f"{process.stdout}\n{process.stderr}".splitlines())) < 1500
