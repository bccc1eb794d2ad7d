"""Training: reproducible, resumable to the same bits, on several devices; the learning rate; validation."""

import csv
import itertools
import json
import os
import signal

import pytest
import torch
from conftest import SMALL
from safetensors.torch import load_file

import checkpoints
import main
from inference.evaluation import evaluate
from models import names
from models.auxresnet import AuxResNet
from system import devices
from system.errors import UserError
from training.schedules import learning_rate
from training.trainer import Trainer

RUN = [*SMALL, "--nEpochs", "3", "--dropout", "0.1"]
FOLDER = "DIGITS-AuxResNet-14-3-dropout"


def tensors(save):
    return {path.name: load_file(path) for path in sorted((save / FOLDER).glob("*.safetensors"))}


def assert_same(first, second):
    assert len(first) == 3
    assert first.keys() == second.keys()
    for file, weights in first.items():
        assert weights.keys() == second[file].keys()
        for name, tensor in weights.items():
            assert tensor.equal(second[file][name]), (file, name)


def log(save):
    with (save / FOLDER / "log.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    save = tmp_path_factory.mktemp("uninterrupted")
    main.main([*RUN, "--save", str(save), "--nThreads", "0"])
    return save


def test_same_seed_same_bits_whatever_the_number_of_workers(uninterrupted, tmp_path):
    main.main([*RUN, "--save", str(tmp_path), "--nThreads", "2"])
    assert_same(tensors(uninterrupted), tensors(tmp_path))
    assert log(uninterrupted) == log(tmp_path)


def test_another_seed_gives_another_result(uninterrupted, tmp_path):
    main.main([*RUN, "--save", str(tmp_path), "--manualSeed", "1"])
    assert log(uninterrupted) != log(tmp_path)


def send_during(monkeypatch, owner, method, number, call):
    """Let this process get a signal in the given call of a method."""
    real, calls = getattr(owner, method), itertools.count(1)

    def signalled(self, *arguments, **options):
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return real(self, *arguments, **options)

    monkeypatch.setattr(owner, method, signalled)


@pytest.mark.parametrize(
    ("number", "status", "method", "call", "how"),
    [
        (signal.SIGINT, 130, "_step", 1, "same command"),
        (signal.SIGTERM, 143, "_step", 6, "folder"),
        (signal.SIGINT, 130, "_step", 8, "same command"),  # the last step of an epoch
        (signal.SIGTERM, 143, "evaluate", 2, "folder"),
    ],
)
def test_resume_equals_uninterrupted(number, status, method, call, how, uninterrupted, tmp_path, monkeypatch, capsys):
    send_during(monkeypatch, Trainer, method, number, call)
    with pytest.raises(SystemExit) as stop:
        main.main([*RUN, "--save", str(tmp_path), "--nThreads", "1"])
    assert stop.value.code == status
    command = f"--resume {tmp_path / FOLDER}"
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"python main.py {command}")
    monkeypatch.undo()
    torch.manual_seed(99)  # nothing may depend on what the process did before
    main.main([*RUN, "--save", str(tmp_path), "--resume"] if how == "same command" else command.split())
    assert_same(tensors(uninterrupted), tensors(tmp_path))
    assert log(uninterrupted) == log(tmp_path)


def test_a_finished_run_resumed_prints_its_table_again(uninterrupted, capsys):
    before = tensors(uninterrupted)
    main.main(["--resume", str(uninterrupted / FOLDER)])
    assert "multiply-adds" in capsys.readouterr().out
    assert_same(before, tensors(uninterrupted))


def test_a_validation_split_keeps_the_best_epoch(tmp_path, capsys):
    main.main([*RUN, "--save", str(tmp_path), "--valSize", "200", "--LR", "0.5"])
    rows = log(tmp_path)
    errors = [float(row["validation_error_14"]) for row in rows]
    header = checkpoints.read_header(tmp_path / FOLDER / "exit-14.safetensors")
    assert header["epochs"] == errors.index(min(errors)) + 1
    assert (header["error"], header["errorOn"]) == (min(errors), "validation")
    assert not any(key.startswith("test_") for key in rows[0])
    assert "test error" in capsys.readouterr().out


def test_exits_and_weights_given_by_hand(tmp_path):
    main.main([*SMALL[:-4], "--nGPU", "0", "--trainSize", "64", "--nOutputs", "2", "--exits", "14,3", "--nEpochs", "1",
               "--exitWeights", "0.5,1", "--shareGradInput", "true", "--schedule", "step", "--shortcutType", "b",
               "--save", str(tmp_path)])  # fmt: skip
    options = json.loads((tmp_path / "DIGITS-AuxResNet-14-2" / "opt.json").read_text())
    assert (options["exits"], options["shortcutType"]) == ([14, 3], "B")
    assert set(checkpoints.exit_files(tmp_path / "DIGITS-AuxResNet-14-2")) == {3, 14}


def test_learning_rate_of_the_paper():
    rates = [learning_rate(epoch / 400, "step", 0.1) for epoch in range(400)]
    assert rates[:160] == [0.1] * 160
    assert rates[160:240] == [pytest.approx(0.01)] * 80
    assert rates[240:] == [pytest.approx(0.001)] * 160


def test_learning_rates_without_steps():
    assert learning_rate(0.0, "cosine", 0.1) == pytest.approx(0.1)
    assert learning_rate(0.5, "cosine", 0.1) == pytest.approx(0.05)
    assert learning_rate(1.0, "cosine", 0.1) == pytest.approx(0.0)
    rates = [learning_rate(step / 1000, "onecycle", 0.1) for step in range(1001)]
    peak = rates.index(max(rates))
    assert (rates[0], rates[peak], rates[-1]) == (pytest.approx(0.001), pytest.approx(0.1), pytest.approx(0.0))
    assert peak == 200
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_several_gpus_share_a_batch(monkeypatch):
    """No GPU here: DataParallel is run with its devices stubbed out, the wrapping and the files are real."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.choose(2) == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert devices.choose(None) == [torch.device("cuda:0")]
    assert devices.choose(0) == [torch.device("cpu")]
    with pytest.raises(UserError, match="--nGPU 4: this machine has 2"):
        devices.choose(4)
    placed = {}
    monkeypatch.setattr(torch.nn, "DataParallel", lambda model, where: placed.setdefault("where", where) and model)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device, **_: placed.setdefault("first", device) and self)
    network = AuxResNet(names.parse("ResNet-8"), 10)
    devices.place(network, devices.choose(2))
    assert placed == {"first": torch.device("cuda:0"), "where": devices.choose(2)}
    assert not any(name.startswith("module.") for name in network.exit_state(8))


def test_evaluation_counts_every_picture_once():
    from datasets import digits

    pictures = digits.load(None, "train")

    class Oracle(torch.nn.Module):
        """Right at its second exit; at its first, right for the digit 0 alone."""

        def forward(self, images):
            start = Oracle.seen
            Oracle.seen += len(images)
            targets = pictures.targets[start : Oracle.seen]
            return [torch.eye(10)[torch.zeros_like(targets)], torch.eye(10)[targets]]

    Oracle.seen = 0
    result = evaluate(Oracle(), pictures, (1.0, 1.0), torch.device("cpu"))
    wrong = (pictures.targets != 0).sum().item()
    assert result.errors == (100 * wrong / len(pictures), 0.0)
