"""plot.py: runs grouped by configuration, means and deviations, one picture; bad folders named in one line."""

import json
import shutil
import statistics

import pytest
from conftest import assert_one_line_error, script
from PIL import Image

import checkpoints


@pytest.fixture
def runs(finished, tmp_path):
    """Three copies of a finished run: two seeds of one configuration and another learning rate, errors moved apart."""
    folders = []
    for index, changes in enumerate(({}, {"manualSeed": 1}, {"LR": 0.2})):
        folder = tmp_path / f"run {index}"
        shutil.copytree(finished[1], folder)
        options = json.loads((folder / "opt.json").read_text()) | changes
        (folder / "opt.json").write_text(json.dumps(options))
        rows = checkpoints.read_log(folder)
        rows[-1]["test_error_14"] = 10.0 + 3 * index
        checkpoints.write_log(folder / "log.csv", rows)
        folders.append(folder)
    return folders


def test_runs_of_one_configuration_are_joined(runs, tmp_path):
    picture = tmp_path / "all.png"
    process = script("plot.py", *runs, "--out", picture)
    assert process.returncode == 0, process.stderr
    rows = [line.split() for line in process.stdout.splitlines() if line.split()[1:2] == ["14"]]
    spread = statistics.stdev([10.0, 13.0])
    assert rows[0][1:7] == ["14", "2", "2", "11.50", "±", f"{spread:.2f}"]
    assert rows[1][1:6] == ["14", "1", "2", "16.00", "%"]
    assert (rows[0][-1], rows[1][-1]) == ("LR=0.1", "LR=0.2")
    assert Image.open(picture).size[0] > 500


def test_a_run_that_is_not_done_shortens_its_group(runs):
    rows = checkpoints.read_log(runs[0])
    checkpoints.write_log(runs[0] / "log.csv", rows[:1])
    process = script("plot.py", *runs[:2], "--out", runs[0] / "p.png")
    assert [line.split()[2:4] for line in process.stdout.splitlines() if line.split()[1:2] == ["14"]] == [["2", "1"]]


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (None, ["log.csv", "No such file"]),
        ("", ["log.csv", "no epoch"]),
        ("epoch,seconds,train_error_14\n1,2,3\n", ["log.csv", "no epoch"]),
        ("epoch,seconds,test_error_14\n1,2,x\n", ["log.csv", "'x'"]),
        ("epoch,seconds,test_error_14\n1,2\n", ["log.csv"]),
    ],
)
def test_a_bad_log_is_named(log, words, runs):
    if log is None:
        (runs[0] / "log.csv").unlink()
    else:
        (runs[0] / "log.csv").write_text(log)
    assert_one_line_error(script("plot.py", runs[0], "--out", runs[0] / "p.png"), 1, *words)


def test_mistakes_are_one_line(runs, tmp_path):
    assert_one_line_error(script("plot.py"), 2, "RUN", "--help")
    for name in ("", ".", "runs.pdf"):
        assert_one_line_error(script("plot.py", runs[0], "--out", name), 2, "--out", "such as runs.png")
    assert_one_line_error(script("plot.py", tmp_path), 1, "opt.json")
    assert_one_line_error(script("plot.py", runs[0], "--out", tmp_path / "none" / "p.png"), 1, "could not be written")
    (runs[0] / "opt.json").write_text('{"depht": 14}')
    assert_one_line_error(script("plot.py", runs[0]), 1, "options of a run")


def test_a_run_given_twice_counts_once_and_one_without_a_log_is_left_out(runs, tmp_path):
    (runs[2] / "log.csv").unlink()
    (runs[0] / "opt.json").write_text((runs[0] / "opt.json").read_text().replace("DIGITS", "/no/such/folder"))
    process = script("plot.py", runs[0], f"{runs[0]}/", runs[2], "--out", tmp_path / "p.png")
    assert process.returncode == 0, process.stderr
    assert [line.split()[2] for line in process.stdout.splitlines() if line.split()[1:2] == ["14"]] == ["1"]
    assert process.stderr.startswith("left out: ")
    assert len(process.stderr.splitlines()) == 1


def test_a_log_with_other_exits_is_not_averaged_with_the_rest(runs, tmp_path):
    log = runs[1] / "log.csv"
    log.write_text(log.read_text().replace("_9", "_11"))
    process = script("plot.py", *runs[:2], "--out", tmp_path / "p.png")
    assert [line.split()[1:3] for line in process.stdout.splitlines() if line.split()[1:2] == ["14"]] == [
        ["14", "1"]
    ] * 2
