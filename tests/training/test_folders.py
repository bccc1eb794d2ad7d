"""The folder of a run is its own: locks, and folders that are moved, removed, or cannot be made."""

import os
import re
import signal
import subprocess
import sys

import pytest

import main
from examples import write_pictures
from programs import PROJECT, assert_one_line_error, deprived, script
from runs import FOLDER, SMALL, start
from system.errors import UsageError, UserError
from system.lock import locked

pytestmark = pytest.mark.slow


def test_two_runs_on_one_folder(tmp_path):
    process = start(tmp_path)
    second = script("main.py", "--resume", tmp_path / "DIGITS-AuxResNet-8-2")
    assert_one_line_error(second, 1, "in use", f"process {process.pid} on ")
    third = script("main.py", "--data", "DIGITS", "--depth", "8", "--save", tmp_path)  # should not say: rename it
    assert_one_line_error(third, 1, "in use", f"process {process.pid} on ")
    process.kill()
    process.communicate(timeout=60)


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, capsys):
    (tmp_path / ".lock").write_text("process 4194304 on elsewhere\n")
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
    assert "process 4194304 on elsewhere" in capsys.readouterr().err
    assert tmp_path.exists()
    assert not list(tmp_path.iterdir())


def test_a_lock_that_is_removed_stops_no_run_but_one_of_another_does(tmp_path):
    with locked(tmp_path / "run") as check_held:
        (tmp_path / "run" / ".lock").unlink()
        check_held()
        (tmp_path / "run" / ".lock").write_text("process 1 on elsewhere\n")
        with pytest.raises(UserError, match="no longer the folder in which the run began"):
            check_held()
    assert (tmp_path / "run" / ".lock").exists()


def test_a_run_that_fails_before_it_starts_leaves_no_folder(tmp_path):
    with pytest.raises(UserError, match="--nGPU 99: this machine has"):
        main.main([*SMALL[:-2], "--nGPU", "99", "--save", str(tmp_path / "new")])
    assert not (tmp_path / "new" / FOLDER).exists()


@pytest.mark.parametrize("name", ["log.csv", "README.md", "curves.png"])
def test_a_run_of_which_only_the_log_was_kept_is_not_written_over(name, tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / name).write_text("epoch,seconds\n")
    anew, on = (
        "holds a run without latest.pt, which cannot go on; rename it",
        "so its run cannot go on; leave --resume out",
    )
    for resume, words in ([], anew), (["--resume"], on), (["--resume", "auto"], "cannot go on"):
        with pytest.raises(UserError, match=words):
            main.main([*SMALL, "--save", str(tmp_path), *resume])
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == [name]


@pytest.mark.parametrize("where", ["train", "train/cat", "test", "val"])
def test_a_run_is_not_put_among_its_pictures(where, tmp_path):
    write_pictures(tmp_path / "train", {"cat": 2, "dog": 2})
    write_pictures(tmp_path / "test", {"cat": 1, "dog": 1})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar10").symlink_to(tmp_path)  # stands in for the archives
    before = sorted(tmp_path.rglob("*"))
    line = ["--dataDir", str(tmp_path / "data"), "--depth", "8", "--save", str(tmp_path / where), "--nGPU", "0"]
    for data in (tmp_path, "CIFAR10"):
        for resume in ([], ["--resume", "auto"]):
            with pytest.raises(UserError, match=f"would be taken for pictures of {tmp_path}/.*; give another --save"):
                main.main(["--data", str(data), *line, *resume])
    assert sorted(tmp_path.rglob("*")) == before


def test_what_auto_begins_has_to_be_fit_to_begin(tmp_path):
    line = [*SMALL, "--nOutputs", "1", "--distill", "1", "--save", str(tmp_path), "--resume", "auto"]
    with pytest.raises(UsageError, match="--distill needs two exits that learn"):
        main.main(line)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("resume", [[], ["--resume"], ["--resume", "auto"]])
def test_a_folder_whose_name_cannot_be_encoded_is_refused(resume, tmp_path):
    (tmp_path / "opt.json").write_text('{"data": "DIGITS", "depth": 8, "save": "\\udcff"}')
    with pytest.raises(UserError, match=r"is not valid UTF-8.*give another --save"):
        main.main(["--config", str(tmp_path / "opt.json"), *resume])


def test_a_folder_that_is_removed_during_the_run(tmp_path):
    process = start(tmp_path, "--saveEvery", "0")
    tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))  # at once, while a removal could meet new files
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search("no longer the folder in which the run began|could not be written", text.splitlines()[-1])
    assert "Traceback" not in text


def test_a_run_whose_folder_was_moved_does_not_write_into_another(tmp_path):
    process = start(tmp_path, "--saveEvery", "0")
    process.send_signal(signal.SIGSTOP)
    folder = tmp_path / "DIGITS-AuxResNet-8-2"
    folder.rename(tmp_path / "moved")
    folder.mkdir()
    for name in ("latest.pt", "log.csv", ".lock"):
        (folder / name).write_text("of another run")
    process.send_signal(signal.SIGCONT)
    _, text = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in text) == (1, False)
    assert re.search("no longer the folder in which the run began|could not be written", text.splitlines()[-1])
    assert {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(
        ("latest.pt", "log.csv", ".lock"), "of another run"
    )


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    process = script("main.py", *SMALL, "--save", tmp_path / "file")
    assert_one_line_error(process, 1, str(tmp_path / "file"))


def test_a_folder_whose_name_is_no_text_is_refused_before_the_training(tmp_path):
    command = [sys.executable, "main.py", *SMALL, "--save", os.fsencode(tmp_path / "q") + b"\xff"]
    process = subprocess.run(command, cwd=PROJECT, capture_output=True)
    assert process.returncode == 1
    assert b"not valid UTF-8" in process.stderr
    assert not process.stdout
    assert not list(tmp_path.iterdir())


def test_a_folder_that_may_not_be_written_into_is_named(tmp_path):
    place, run = tmp_path / "mine", PROJECT / "tests" / "fixtures" / "finished" / "DIGITS-AuxResNet-8-2"
    place.mkdir()
    place.chmod(0o500)
    plot = ["plot.py", str(run), "--out", str(place / "p.png")]
    for line, words in (
        (["main.py", *SMALL, "--save", str(place)], "Permission denied"),
        (plot, "is read-only; give another folder"),
    ):
        command = deprived([sys.executable, *line])
        process = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
        assert_one_line_error(process, 1, str(place), words)
