"""Runs: reproducible, resumable to the same bits, with a validation split, with exits given by hand."""

import json
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch

import checkpoints
import main
from formats import exit_file, log_file
from programs import PROJECT
from runs import EXITS, SMALL, exit_files, logged, stopped, uninterrupted_run, with_errors
from training import run
from training.run import Run
from training.schedules import LearningRate
from training.trainer import Trainer

pytestmark = pytest.mark.slow

RUN = [*SMALL, "--nEpochs", "3", "--dropout", "0.1"]
FOLDER = "DIGITS-AuxResNet-14-3-dropout-0.1"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return uninterrupted_run(tmp_path_factory, RUN)


def test_same_seed_same_bits_whatever_the_number_of_workers(uninterrupted, tmp_path):
    main.main([*RUN, "--save", str(tmp_path), "--nThreads", "2"])
    assert exit_files(uninterrupted / FOLDER) == exit_files(tmp_path / FOLDER)
    assert logged(uninterrupted / FOLDER) == logged(tmp_path / FOLDER)


def test_the_log_tells_the_learning_rate_the_pace_and_where_the_time_went(uninterrupted):
    rows = log_file.read(uninterrupted / FOLDER)
    rate = LearningRate(0.1, "onecycle")
    for number, row in enumerate(rows):
        assert row["learning_rate"] == rate((number + 3 / 4) / 3)  # that of the last of four steps
        parts = [row[f"seconds_{part}"] for part in log_file.PARTS]
        assert sum(parts) == pytest.approx(row["seconds"], abs=0.07)  # rounded
        low, high = (256 / (row["seconds_training"] + rounded) for rounded in (0.0051, -0.0051))
        assert low - 0.051 <= row["images_per_second"] <= high + 0.051


def test_another_seed_gives_another_result(uninterrupted, tmp_path):
    main.main([*RUN, "--save", str(tmp_path), "--manualSeed", "1"])
    assert logged(uninterrupted / FOLDER) != logged(tmp_path / FOLDER)


@pytest.mark.parametrize(
    ("number", "status", "owner", "method", "call", "how"),
    [
        (signal.SIGINT, 130, Trainer, "step", 1, "same command"),
        (signal.SIGTERM, 143, Trainer, "step", 6, "folder"),
        (signal.SIGINT, 130, Trainer, "step", 8, "same command"),  # the last step of an epoch
        (signal.SIGTERM, 143, Run, "evaluate", 2, "folder"),
    ],
)
def test_resume_equals_uninterrupted(number, status, owner, method, call, how, uninterrupted, tmp_path, capsys):
    assert stopped([*RUN, "--save", tmp_path, "--nThreads", "1"], owner, method, call, number) == status
    command = f"--resume {tmp_path / FOLDER}"
    assert not (tmp_path / FOLDER / "README.md").exists()
    assert capsys.readouterr().err.splitlines()[-1].endswith(f" python {PROJECT / 'main.py'} {command}")
    torch.manual_seed(99)  # nothing may depend on what the process did before
    main.main([*RUN, "--save", str(tmp_path), "--resume"] if how == "same command" else command.split())
    assert exit_files(uninterrupted / FOLDER) == exit_files(tmp_path / FOLDER)
    assert logged(uninterrupted / FOLDER) == logged(tmp_path / FOLDER)
    pages = [(save / FOLDER / "README.md").read_bytes() for save in (uninterrupted, tmp_path)]
    assert pages[0] == pages[1]


def test_a_finished_run_resumed_prints_its_table_again_and_writes_its_page_anew(uninterrupted, tmp_path, capsys):
    folder = shutil.copytree(uninterrupted / FOLDER, tmp_path / FOLDER)
    (folder / "README.md").unlink()
    main.main(["--resume", str(folder)])
    assert "multiply-adds" in capsys.readouterr().out
    assert (folder / "README.md").read_text() == (uninterrupted / FOLDER / "README.md").read_text()
    assert exit_files(folder) == exit_files(uninterrupted / FOLDER)


@pytest.mark.parametrize(("minutes", "steps"), [("0", [0, 1, 2, 3, 4, 0]), ("2", [0, 2, 4, 0]), ("1000", [0, 0])])
def test_the_state_is_saved_within_an_epoch_as_often_as_asked(minutes, steps, tmp_path, monkeypatch):
    """And before the first step, and after the epoch. A step takes 61 seconds by the clock that is put in here."""
    real, real_step, written, seconds = checkpoints.RunFiles.write_state, Trainer.step, [], [0]

    def write_state(self, state):
        written.append(state["step"])
        real(self, state)

    def step(*arguments):
        seconds[0] += 61
        return real_step(*arguments)

    monkeypatch.setattr(checkpoints.RunFiles, "write_state", write_state)
    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    main.main([*SMALL, "--nEpochs", "1", "--saveEvery", minutes, "--save", str(tmp_path)])
    assert written == steps


def test_a_validation_split_keeps_the_best_epoch(tmp_path, capsys):
    main.main([*RUN, "--save", str(tmp_path), "--valSize", "200", "--LR", "0.5"])
    rows = logged(tmp_path / FOLDER)
    errors = [float(row["validation_error_14"]) for row in rows]
    header = exit_file.read_header(tmp_path / FOLDER / "exit-14.safetensors")
    assert header["epochs"] == errors.index(min(errors)) + 1
    assert (header["error"], header["errorOn"]) == (min(errors), "validation")
    assert not any(key.startswith("test_") for key in rows[0])
    title, _, *table = capsys.readouterr().out.split("\n\n")[-1].splitlines()
    assert title.split("  ")[-3:] == ["validation error", "test error", "file"]
    assert f"  {min(errors):.2f} %  " in table[-1]


def test_an_exit_that_does_not_learn_chooses_no_epoch(tmp_path, monkeypatch):
    """Exit 14 would choose the first epoch, exit 5 the last; exit 9 is the deepest that learns."""
    errors = [(60.0, 40.0, 10.0), (50.0, 20.0, 20.0), (40.0, 30.0, 30.0)]
    with_errors(monkeypatch, errors)
    main.main([*RUN, "--save", str(tmp_path), "--valSize", "200", "--exitWeights", "1,1,0"])
    for position, error in zip(EXITS, errors[1], strict=True):
        header = exit_file.read_header(exit_file.path_in(tmp_path / FOLDER, position))
        assert (header["epochs"], header["error"]) == (2, error)


def test_exits_and_weights_given_by_hand(tmp_path):
    main.main([*SMALL[:-4], "--nGPU", "0", "--trainSize", "64", "--nOutputs", "2", "--exits", "3,14", "--nEpochs", "1",
               "--exitWeights", "0.5,1", "--shareGradInput", "true", "--schedule", "step", "--shortcutType", "b",
               "--save", str(tmp_path)])  # fmt: skip
    options = json.loads((tmp_path / "DIGITS-AuxResNet-14-2-exits-3-14-shortcut-B" / "opt.json").read_text())
    assert (options["exits"], options["shortcutType"]) == ([3, 14], "B")
    assert set(exit_file.files_in(tmp_path / "DIGITS-AuxResNet-14-2-exits-3-14-shortcut-B")) == {3, 14}


def test_resume_auto_begins_a_network_beside_another_of_its_name(tmp_path):
    line = ["--data", "DIGITS", "--depth", "8", "--trainSize", "200", "--nEpochs", "1", "--nThreads", "0"]
    for more in ([], ["--exits", "3,8"], []):
        main.main([*line, *more, "--save", str(tmp_path), "--resume", "auto"])
    assert {folder.name for folder in tmp_path.iterdir()} == {"DIGITS-AuxResNet-8-2", "DIGITS-AuxResNet-8-2-exits-3-8"}
