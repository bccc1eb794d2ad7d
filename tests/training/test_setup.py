"""Options reach the part of a training that they are for."""

from pathlib import Path

import pytest
import torch

import opts
from datasets import catalog, splits
from datasets.transforms import Augmentation
from examples import CPU, NORMALISE
from models import names
from models.losses import Objective
from programs import together
from runs import SMALL
from system import arithmetic
from training import setup
from training.muon import Muon
from training.run import started
from training.schedules import ExitWeights


def trainer(line):
    options = opts.parse([*SMALL, *line.split()])
    return setup.trainer(options, names.of_options(vars(options)), 10, NORMALISE, CPU, batch=20)


@pytest.mark.parametrize(
    ("line", "part", "value"),
    [
        ("--labelSmoothing 0.1 --distill 2 --temperature 3", "objective", Objective(0.1, 2, 3, "last")),
        ("--distill 1 --teacher ensemble", "objective", Objective(0, 1, 1, "ensemble")),
        ("--exitWeights 0.5,1,1 --exitSchedule deepen", "exit_weights", ExitWeights((0.5, 1, 1), "deepen")),
        ("--mixup 0.2", "mixup", 0.2),
        ("--manualSeed 7", "seed", 7),
        ("--precision bf16", "dtype", torch.bfloat16),
        ("--precision float", "dtype", None),
        ("--compile true", "compiled_batch", 20),
        ("--compile false", "compiled_batch", 0),
    ],
)
def test_options_reach_the_trainer(line, part, value):
    assert getattr(trainer(line), part) == value


def shares_norms():
    return [trainer(f"--syncBN {flag}").sync_norms for flag in ("true", "false")]


def test_batch_norms_are_shared_among_processes_where_asked():
    assert together(2, shares_norms) == [[True, False]] * 2


def test_options_reach_the_optimizers():
    (sgd,) = trainer("--momentum 0.5 --weightDecay 0.01 --decayNorms true").optimizers
    assert {(group["momentum"], group["weight_decay"]) for group in sgd.param_groups} == {(0.5, 0.01)}
    (sgd,) = trainer("--weightDecay 0.01 --decayNorms false").optimizers
    assert {group["weight_decay"] for group in sgd.param_groups} == {0.0, 0.01}
    assert [type(optimizer) for optimizer in trainer("--optimizer muon").optimizers] == [torch.optim.SGD, Muon]


def test_options_reach_the_network_and_its_average():
    assert [trainer(f"--shareGradInput {flag}").network.share_grad_input for flag in ("true", "false")] == [True, False]
    assert [trainer(f"--ema {decay}").average is not None for decay in ("0.9", "0")] == [True, False]


def test_pictures_are_varied_as_the_options_say():
    data = splits.for_training(catalog.find("DIGITS", Path()), 64, 0)
    options = opts.parse([*SMALL, *"--padding reflect --cutout 8 --alternateFlip true".split()])
    expected = Augmentation(
        pad=4, padding="reflect", with_margin=False, flip=False, alternate=True, cutout=8, fill=data.mean
    )
    assert setup.augmentation(options, data) == expected


@pytest.mark.parametrize(("pictures", "batch"), [(20, 20), (131, 66), (300, 128)])
def test_code_is_compiled_for_the_batches_that_there_are(pictures, batch, tmp_path, monkeypatch):
    """Few pictures are one batch; two batches may share them."""
    monkeypatch.setattr(arithmetic, "check_compiles", lambda device: None)
    line = ["--trainSize", str(pictures), "--batchsize", "128", "--compile", "true", "--save", str(tmp_path)]
    options = opts.parse([*SMALL, *line])
    with started(options, names.of_options(vars(options))) as run:
        assert run.trainer.compiled_batch == batch


def test_a_scaled_learning_rate_is_that_of_128_pictures():
    lines = (["--batchsize", "32"], ["--batchsize", "32", "--scaleLR", "true"])
    rates = [setup.learning_rate(opts.parse(["--schedule", "cosine", *line]))(0.0) for line in lines]
    assert rates == pytest.approx([0.1, 0.025])
