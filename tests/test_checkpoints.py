"""The folder of a run, in which files are missing, damaged, or of different epochs."""

import re
from functools import partial

import pytest
from safetensors.torch import load_file

import main
from examples import flipped
from formats import exit_file, log_file
from runs import SMALL, exit_files, resume
from system.errors import UserError

pytestmark = pytest.mark.slow


def test_exits_of_a_finished_run_that_are_missing_or_damaged_are_made_anew(run_copy, finished, capsys):
    save, folder = run_copy
    (folder / "exit-5.safetensors").unlink()
    (folder / "exit-14.safetensors").write_bytes(flipped((folder / "exit-14.safetensors").read_bytes()))
    resume(save)
    assert "exit-5.safetensors cannot be read" in capsys.readouterr().err
    assert exit_files(folder) == exit_files(finished[1])


def of_epoch(path, epoch):
    """Make an exit file one of another epoch, as a crash between two files would leave it."""
    path.write_bytes(exit_file.content(load_file(path), {**exit_file.read_header(path), "epochs": epoch}))


def test_exits_of_two_epochs_do_not_stay_together(run_copy, finished, capsys):
    save, folder = run_copy
    of_epoch(folder / "exit-5.safetensors", 1)
    resume(save)
    assert "exit-5.safetensors is of epoch 1, not of epoch 2" in capsys.readouterr().err
    assert exit_files(folder) == exit_files(finished[1])


def test_exits_of_two_epochs_are_not_tested_as_one(tmp_path, capsys):
    folder = tmp_path / "DIGITS-AuxResNet-14-3"
    path = folder / "exit-5.safetensors"
    run = ["--valSize", "100", "--nEpochs", "3", "--LR", "1e-9", "--nThreads", "0"]
    main.main([*SMALL, *run, "--save", str(tmp_path)])
    kept = exit_file.read_header(path)["epochs"]
    assert kept < 3  # of which nothing else is left
    of_epoch(path, 3)
    before = exit_files(folder)
    with pytest.raises(UserError, match=f"{path} is of epoch 3, not of epoch {kept}"):
        main.main(["--resume", str(folder)])
    assert "the exits of the best epoch so far are missing or damaged" in capsys.readouterr().err
    assert exit_files(folder) == before


def test_exits_of_an_older_epoch_than_the_state_are_written_anew(run_copy, finished, capsys):
    save, folder = run_copy
    for path in folder.glob("exit-*"):
        of_epoch(path, 1)
    resume(save)
    assert "exit-5.safetensors is of epoch 1, not of epoch 2; the exits are written anew" in capsys.readouterr().err
    assert exit_files(folder) == exit_files(finished[1])


def test_a_log_that_is_lost_is_written_anew(run_copy, capsys):
    _, folder = run_copy
    path = folder / "log.csv"
    before = path.read_bytes()
    changed = re.sub(r"(?m)^2,[0-9.]+", "2,99.9", before.decode())
    lines = [line.split(",") for line in before.decode().splitlines()]
    narrow = "\n".join(",".join(cells[:2] + cells[3:]) for cells in lines)  # without train_loss
    old = "\n".join(",".join(cells[: -len(log_file.COURSE)]) for cells in lines)  # as if it were of an older version
    for spoil in (path.unlink, *(partial(path.write_text, text) for text in ("", changed, narrow, old))):
        spoil()
        main.main(["--resume", str(folder)])
        assert path.read_bytes() == before
        assert "log.csv" in capsys.readouterr().err
