"""plot.py: runs grouped by configuration, means and deviations, one plot; bad folders named in one line."""

import json
import shutil
import statistics
import sys

import pytest
from PIL import Image

import plot
from formats import log_file
from programs import assert_one_line_error, rows_of, script
from reports import plots, tables
from system.errors import UserError

pytestmark = pytest.mark.slow

SMALL = {"data": "DIGITS", "depth": 14, "nOutputs": 3, "widen": 1, "nEpochs": 2}


def make(folder, kind="test", positions=(5, 9, 14), last=10.0, epochs=2, **options):
    """The folder of a run as far as plot.py reads it; its last exit ends with the error `last`."""
    folder.mkdir()
    (folder / "opt.json").write_text(json.dumps({**SMALL, **options}))
    rows = [{"epoch": epoch, "seconds": 1.0, "train_loss": 1.0} for epoch in range(1, epochs + 1)]
    for row in rows:
        row |= {f"{part}_error_{position}": 50.0 for part in ("train", kind) for position in positions}
    rows[-1][f"{kind}_error_{positions[-1]}"] = last
    (folder / log_file.FILE).write_bytes(tables.as_csv(rows))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two seeds of one configuration, and another learning rate."""
    changes = ({}, {"manualSeed": 1}, {"LR": 0.2})
    return [make(tmp_path / f"run {n}", last=10.0 + 3 * n, **changed) for n, changed in enumerate(changes)]


@pytest.fixture
def printed(tmp_path, capsys):
    """Draws runs; gives the cells of the table's rows by title, and fails where None is printed."""

    def draw(*folders):
        plot.main([*map(str, folders), "--out", str(tmp_path / "all.png")])
        text = capsys.readouterr().out
        assert "None" not in text
        assert text.splitlines()[-1] == f"plot: {tmp_path / 'all.png'}"
        return rows_of(text)

    return draw


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn: a list of pairs of a title and groups by heading."""
    calls, real = [], plots.draw_groups
    monkeypatch.setattr(plots, "draw_groups", lambda *arguments: calls.append(arguments) or real(*arguments))
    return calls


def at(position, rows):
    return [row for row in rows if row["exit"] == str(position)]


def test_runs_of_one_configuration_are_joined(runs, printed, drawn, tmp_path):
    first, second = at(14, printed(*runs))
    spread = statistics.stdev([10.0, 13.0])
    assert (first["runs"], first["epochs"], first["test error"]) == ("2", "2", f"11.50 ± {spread:.2f} %")
    assert (second["runs"], second["epochs"], second["test error"]) == ("1", "2", "16.00 %")
    assert (first["what differs"], second["what differs"]) == ("LR=0.1", "LR=0.2")
    assert (first["network"], first["data set"]) == ("AuxResNet-14-3", "DIGITS")
    ((title, groups),) = drawn
    assert title == "AuxResNet-14-3 on DIGITS"
    assert list(groups) == ["1: test error, LR=0.1, mean of 2 runs", "2: test error, LR=0.2"]
    assert [curve.label for curve in groups["2: test error, LR=0.2"]] == ["exit 5", "exit 9", "exit 14"]
    assert Image.open(tmp_path / "all.png").width > 500


def test_a_copy_of_a_run_counts_once(runs, printed, tmp_path):
    shutil.copytree(runs[0], tmp_path / "copy")
    first, second = at(14, printed(*runs, tmp_path / "copy"))
    assert (first["runs"], second["runs"]) == ("2", "1")


def test_a_folder_of_pictures_is_the_same_in_every_spelling(tmp_path, printed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spelled = ("pictures", "pictures/", str(tmp_path / "pictures"))
    runs = [make(tmp_path / f"{n}", data=data, last=10.0 + n, manualSeed=n) for n, data in enumerate(spelled)]
    rows = printed(*runs)
    assert [row["runs"] for row in rows] == ["3"] * len(rows)


def test_one_group_needs_no_number_and_no_differences(runs, printed, drawn):
    assert "what differs" not in printed(*runs[:2])[0]
    assert list(drawn[0][1]) == ["test error, mean of 2 runs"]


def test_validation_and_test_errors_are_told_apart_and_never_averaged(runs, printed, drawn, tmp_path):
    same = make(tmp_path / "val", kind="validation", last=20.0)  # no option tells them apart
    first, second = at(14, printed(runs[0], same))
    assert (first["test error"], first["validation error"]) == ("10.00 %", "")
    assert (second["test error"], second["validation error"]) == ("", "20.00 %")
    assert list(drawn[0][1]) == ["1: test error", "2: validation error"]


def test_other_networks_and_data_sets_are_named(runs, printed, drawn, tmp_path):
    wide = make(tmp_path / "wide", positions=(19, 26), depth=26, nOutputs=2, widen=10, data="CIFAR10")
    plain = make(tmp_path / "plain", positions=(14,), nOutputs=1, data="/no/such/my $birds$\n")
    rows = printed(runs[0], wide, plain)
    assert [(row["network"], row["data set"], row["exit"]) for row in rows][2:] == [
        ("AuxResNet-14-3", "DIGITS", "14"),
        ("AuxResNet-26-2/10", "CIFAR10", "19"),
        ("AuxResNet-26-2/10", "CIFAR10", "26"),
        ("ResNet-14", "my $birds$�", "14"),
    ]
    assert "what differs" not in rows[0]  # the names have told it all
    ((title, groups),) = drawn
    assert title == "error of each exit"
    assert list(groups)[1] == "2: AuxResNet-26-2/10 on CIFAR10, test error"


def test_what_names_leave_open_is_shown_among_runs_of_one_name(printed, tmp_path):
    options = ({"dropout": 0.3}, {"dropout": 0.1}, {"dropout": 0.1, "exits": [3, 9, 14]}, {"depth": 20})
    folders = [make(tmp_path / f"d{number}", **changed) for number, changed in enumerate(options)]
    assert [row["what differs"] for row in at(14, printed(*folders))] == [
        "exits=5,9,14 dropout=0.3",
        "exits=5,9,14 dropout=0.1",
        "exits=3,9,14 dropout=0.1",
        "",
    ]


def test_exits_given_as_the_default_ones_are_the_same_configuration(printed, tmp_path):
    given = make(tmp_path / "given", exits=[5, 9, 14], shortcutType="A")
    (row,) = at(14, printed(given, make(tmp_path / "default", last=11.0)))
    assert row["runs"] == "2"


def test_all_pictures_are_called_all(runs, printed, tmp_path):
    part = make(tmp_path / "part", trainSize=256)
    assert [row["what differs"] for row in at(14, printed(runs[0], part))] == ["trainSize=all", "trainSize=256"]


def test_what_runs_began_with_is_told_by_the_names_of_folders(runs, printed, tmp_path):
    again = [make(tmp_path / f"again {n}", last=n, retrain=f"seeds/{n}/birds-ResNet-8/", manualSeed=n) for n in (1, 2)]
    rows = {row["what differs"]: row["runs"] for row in at(14, printed(runs[0], *again))}
    assert rows == {"retrain=none": "1", "retrain=birds-ResNet-8": "2"}


def test_a_run_that_is_not_done_shortens_its_group(runs, printed, tmp_path):
    (row,) = at(14, printed(runs[0], make(tmp_path / "young", epochs=1, manualSeed=2)))
    assert (row["runs"], row["epochs"]) == ("2", "1")


def test_a_run_that_was_not_tested_yet_has_no_error(runs, printed):
    rows = log_file.read(runs[0])
    untested = [{n: None if n.startswith("test") else v for n, v in rows[0].items()}]
    (runs[0] / log_file.FILE).write_bytes(tables.as_csv(untested))
    (row,) = at(14, printed(runs[0]))
    assert (row["test error"], row["epochs"]) == ("none yet", "0")


def test_a_log_with_other_exits_is_not_averaged_with_the_rest(runs, printed):
    log = runs[1] / "log.csv"
    log.write_text(log.read_text().replace("_9", "_11"))
    assert [row["runs"] for row in at(14, printed(*runs[:2]))] == ["1", "1"]


def test_a_run_given_twice_counts_once_and_one_without_a_log_is_left_out(runs, tmp_path):
    (runs[2] / "log.csv").unlink()
    process = script("plot.py", runs[0], f"{runs[0]}/", runs[2], "--out", tmp_path / "p.png")
    assert process.returncode == 0, process.stderr
    assert [line.split()[2] for line in process.stdout.splitlines() if line.split()[1:2] == ["14"]] == ["1"]
    assert process.stderr.startswith("left out: ")
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (None, ["log.csv", "No such file"]),
        ("", ["log.csv", "no epoch"]),
        ("epoch,seconds,train_error_14\n1,2,3\n", ["log.csv", "no epoch"]),
        ("epoch,seconds,test_error_14\n1,2,x\n", ["log.csv", "'x'"]),
        ("epoch,seconds,test_error_14\n1,2\n", ["log.csv"]),
        ("epoch,seconds,test_error_14\n1,inf,3\n", ["log.csv", "an odd seconds"]),
        ("epoch,seconds,test_error_14\n1,2,1e999\n", ["log.csv", "from 0 to 100"]),
        ("epoch,seconds,test_error_14\n1,2,3\n3,2,3\n", ["log.csv", "every epoch of a run once, in order"]),
        ("epoch,seconds,test_error_14\n1,2,3\n1,2,3\n", ["log.csv", "every epoch of a run once, in order"]),
    ],
)
def test_a_bad_log_is_named(log, words, runs):
    if log is None:
        (runs[0] / "log.csv").unlink()
    else:
        (runs[0] / "log.csv").write_text(log)
    assert_one_line_error(script("plot.py", runs[0], "--out", runs[0] / "p.png"), 1, *words)


NO_OPTIONS = (
    '{"depht": 14}',
    '{"depth": 15}',
    '{"depth": "14"}',
    '{"depth": 14, "data": 3}',
    '{"depth": 14, "exits": 5}',
)


@pytest.mark.parametrize("options", NO_OPTIONS)
def test_options_of_no_run_are_named(options, runs):
    (runs[0] / "opt.json").write_text(options)
    assert_one_line_error(script("plot.py", runs[0]), 1, "opt.json does not hold the options of a run")


def test_the_table_is_printed_where_no_plot_can_be_drawn(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"no plot could be drawn: .*; pip install -r requirements\.txt"):
        plot.main([str(runs[0]), "--out", str(tmp_path / "p.png")])
    assert "test error" in capsys.readouterr().out
    assert not (tmp_path / "p.png").exists()


def test_mistakes_are_one_line(runs, tmp_path):
    assert_one_line_error(script("plot.py"), 2, "RUN", "--help")
    for name in ("", ".", "runs.pdf"):
        assert_one_line_error(script("plot.py", runs[0], "--out", name), 2, "--out", "such as result.png")
    assert_one_line_error(script("plot.py", tmp_path), 1, "opt.json")
    (tmp_path / "loop").symlink_to("loop")
    assert_one_line_error(script("plot.py", tmp_path / "loop"), 1, "loop/opt.json cannot be read: Too many levels")
    assert_one_line_error(script("plot.py", runs[0], "--out", tmp_path / "none" / "p.png"), 1, "there is no folder")
