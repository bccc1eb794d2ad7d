"""When a run is tested, in which precision, and what its files say about it."""

import csv
import os
import signal

import pytest
import torch
from conftest import SMALL, script
from safetensors.torch import load_file

import checkpoints
import main
from datasets import digits
from datasets.pictures import balanced_order
from datasets.transforms import Normalise
from inference import saved
from inference.evaluation import Result
from training.trainer import Trainer

FOLDER = "DIGITS-AuxResNet-14-3"
LINE = [*SMALL, "--nEpochs", "5", "--testEvery", "2"]


def log(save):
    with (save / FOLDER / "log.csv").open() as file:
        return list(csv.DictReader(file))


def untimed(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    save = tmp_path_factory.mktemp("sparse")
    main.main([*LINE, "--save", str(save)])
    return save


def test_every_second_epoch_and_the_last_are_tested(sparse, capsys):
    rows = log(sparse)
    assert [bool(row["test_error_14"]) for row in rows] == [False, True, False, True, True]
    assert [bool(row["test_loss"]) for row in rows] == [False, True, False, True, True]
    assert all(row["train_error_14"] for row in rows)
    assert checkpoints.read_log(sparse / FOLDER)[0]["test_error_5"] is None
    header = checkpoints.read_header(sparse / FOLDER / "exit-14.safetensors")
    assert (header["epochs"], header["error"]) == (5, float(rows[-1]["test_error_14"]))


@pytest.mark.parametrize(("method", "call"), [("_step", 3), ("_step", 9), ("evaluate", 2)])
def test_a_run_that_is_tested_now_and_then_resumes_to_the_same(method, call, sparse, tmp_path, monkeypatch):
    real, calls = getattr(Trainer, method), []

    def signalled(self, *arguments, **options):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *arguments, **options)

    monkeypatch.setattr(Trainer, method, signalled)
    with pytest.raises(SystemExit):
        main.main([*LINE, "--save", str(tmp_path)])
    monkeypatch.undo()
    main.main(["--resume", str(tmp_path / FOLDER)])
    assert untimed(log(tmp_path)) == untimed(log(sparse))
    for position in (5, 9, 14):
        ours, theirs = (load_file(save / FOLDER / f"exit-{position}.safetensors") for save in (tmp_path, sparse))
        assert all(tensor.equal(theirs[name]) for name, tensor in ours.items())


def test_plot_takes_runs_with_gaps_and_runs_without_a_test(sparse, tmp_path):
    rows = checkpoints.read_log(sparse / FOLDER)
    young = tmp_path / FOLDER
    young.mkdir()
    (young / "opt.json").write_bytes((sparse / FOLDER / "opt.json").read_bytes())
    checkpoints.write_log(young / "log.csv", rows[:3])
    both = script("plot.py", sparse / FOLDER, young, "--out", tmp_path / "p.png")
    assert both.returncode == 0, both.stderr
    (row,) = [line.split() for line in both.stdout.splitlines() if line.split()[1:2] == ["14"]]
    assert row[2:4] == ["2", "2"]  # two runs, both tested after the second epoch
    checkpoints.write_log(young / "log.csv", rows[:1])
    alone = script("plot.py", young, "--out", tmp_path / "p.png")
    assert alone.returncode == 0, alone.stderr
    assert "none yet" in alone.stdout


@pytest.mark.parametrize("split", [[], ["--valSize", "300"]])
def test_what_is_reported_at_the_end_is_measured_in_float32(split, tmp_path, capsys, monkeypatch):
    """In between, in the precision of training; whatever that gives stays out of headers and of the table."""
    real, precisions = Trainer.evaluate, []

    def biased(self, *arguments, exact=True):
        precisions.append(exact)
        result = real(self, *arguments, exact=exact)
        errors = tuple(error / 2 for error in result.errors)
        return result if exact else Result(result.loss, errors)  # so that a split keeps an epoch before the last

    monkeypatch.setattr(Trainer, "evaluate", biased)
    line = [*SMALL, *split, "--nEpochs", "3", "--precision", "bf16", "--batchsize", "32", "--save", str(tmp_path)]
    main.main(line)
    monkeypatch.undo()
    folder = tmp_path / FOLDER
    assert precisions == [False, False, True, *([True, True] if split else [])]
    printed = {line.split()[0]: line for line in capsys.readouterr().out.split("exit  parameters")[1].splitlines()[2:]}
    for position, path in checkpoints.exit_files(folder).items():
        result = script("test.py", "DIGITS", path)
        assert f"{result.stdout.split()[1]} %" in printed[str(position)]
        header = checkpoints.read_header(path)
        if split:
            assert header["epochs"] < 3
            assert header["error"] == pytest.approx(validation_error(path, 300))
        else:
            assert f"{header['error']:.2f}" == result.stdout.split()[1]
            assert header["error"] == float(log(tmp_path)[-1][f"test_error_{position}"])


def validation_error(path, size):
    """An independent forward pass over the split."""
    model = saved.load({checkpoints.position_of(path): path})
    pictures = digits.load(None, "train")
    pictures = pictures.take(balanced_order(pictures.targets)[len(pictures) - size :])
    with torch.inference_mode():
        logits = model.network(Normalise(model.header["mean"], model.header["std"])(pictures.images))[-1]
    return 100 * (logits.argmax(1) != pictures.targets).double().mean().item()


def test_a_finished_run_with_a_split_resumed_says_the_same(tmp_path, capsys):
    line = [*SMALL, "--valSize", "300", "--nEpochs", "2", "--precision", "bf16", "--save", str(tmp_path)]
    main.main(line)
    first = capsys.readouterr().out.split("exit  parameters")[1]
    files = {path.name: path.read_bytes() for path in (tmp_path / FOLDER).glob("exit-*")}
    main.main(["--resume", str(tmp_path / FOLDER)])
    assert capsys.readouterr().out.split("exit  parameters")[1] == first
    assert files == {path.name: path.read_bytes() for path in (tmp_path / FOLDER).glob("exit-*")}
