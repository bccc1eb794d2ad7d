"""A run goes on, whatever becomes of the streams that it prints to."""

import shlex
import subprocess
import sys

import pytest
from conftest import PROJECT, SMALL

pytestmark = pytest.mark.slow

FOLDER = "DIGITS-AuxResNet-14-3"


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
