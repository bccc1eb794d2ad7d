"""The ingredients of a recipe: each does what it says, and all of them together are reproducible and resumable."""

import pytest
import torch
from safetensors.torch import load_file

import main
from datasets import digits
from formats import exit_file, log_file
from inference import asking, saved
from programs import rows_of, script
from runs import SMALL, exit_files, last_state, stopped, uninterrupted_run
from system.machine import ON_CPU
from training.run import Run
from training.trainer import Trainer

pytestmark = pytest.mark.slow

EVERYTHING = [
    *SMALL, "--nEpochs", "4", "--dropout", "0.1", "--optimizer", "muon", "--ema", "0.9", "--labelSmoothing", "0.1",
    "--decayNorms", "false", "--cutout", "8", "--alternateFlip", "true", "--distill", "1", "--teacher", "ensemble",
    "--temperature", "2", "--exitSchedule", "deepen", "--startSize", "16", "--scaleLR", "true", "--padding", "reflect",
    "--mixup", "0.2",
]  # fmt: skip
FOLDER = "DIGITS-AuxResNet-14-3-dropout-0.1"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return uninterrupted_run(tmp_path_factory, EVERYTHING)


@pytest.mark.parametrize(("owner", "method", "call"), [(Trainer, "step", 2), (Trainer, "step", 7), (Run, "evaluate", 1),
                                                       (Trainer, "step", 11)])  # fmt: skip
def test_all_ingredients_resume_to_the_same_bits(owner, method, call, uninterrupted, tmp_path):
    stopped([*EVERYTHING, "--save", str(tmp_path), "--nThreads", "2"], owner, method, call)
    torch.manual_seed(99)  # nothing may depend on what the process did before
    main.main(["--resume", str(tmp_path / FOLDER)])
    assert exit_files(uninterrupted / FOLDER) == exit_files(tmp_path / FOLDER)


@pytest.mark.parametrize(("weights", "optimizer"), [("0,0,1", "sgd"), ("1,0,0", "muon")])
def test_a_run_with_exits_that_learn_nothing_resumes_to_the_same_bits(weights, optimizer, tmp_path):
    line = [*SMALL, "--nEpochs", "2", "--exitWeights", weights, "--optimizer", optimizer, "--nThreads", "0", "--save"]
    main.main([*line, str(tmp_path / "whole")])
    stopped([*line, str(tmp_path / "parts")], Trainer, "step", 2)
    main.main([*line, str(tmp_path / "parts"), "--resume"])
    whole, parts = (exit_files(tmp_path / name / "DIGITS-AuxResNet-14-3") for name in ("whole", "parts"))
    assert whole == parts


def test_the_test_loss_is_that_of_plain_targets_without_a_teacher(uninterrupted):
    """Whatever the training makes smaller, so that runs of all recipes compare."""
    model = saved.load({p: uninterrupted / FOLDER / f"exit-{p}.safetensors" for p in (5, 9, 14)})
    logits, targets = asking.collect(model, digits.load(None, "test"), ON_CPU)
    losses = [torch.nn.functional.cross_entropy(z, targets).item() for z in logits]
    assert log_file.read(uninterrupted / FOLDER)[-1]["test_loss"] == pytest.approx(sum(losses), rel=1e-4)


def test_the_exit_files_hold_what_was_tested(uninterrupted):
    """The averaged weights, with statistics of their own."""
    result = script("test.py", "DIGITS", FOLDER.removeprefix("DIGITS-"), "--exit", "all", "--save", uninterrupted)
    errors = {row["exit"]: row["error"] for row in rows_of(result.stdout)}
    for position in (5, 9, 14):
        header = exit_file.read_header(uninterrupted / FOLDER / f"exit-{position}.safetensors")
        assert errors[str(position)] == f"{header['error']:.2f} %"
    state = last_state(uninterrupted / FOLDER)
    kept = load_file(uninterrupted / FOLDER / "exit-14.safetensors")
    average = state["training"]["average"]["weights"]
    assert kept["stem.weight"].equal(average["stem.weight"])
    assert not kept["stem.weight"].equal(state["network"]["stem.weight"])
    norm = "segments.1.0.norms.0.running_mean"
    assert not kept[norm].equal(state["network"][norm])


def test_the_parts_of_a_recipe_are_printed_and_kept(tmp_path):
    main_line = [*SMALL, "--nEpochs", "1", "--recipe", "fast", "--batchsize", "32"]
    process = script("main.py", *main_line, "--save", tmp_path)
    assert process.returncode == 0, process.stderr
    assert {"recipe=fast", "optimizer=muon", "schedule=onecycle"} <= set(process.stdout.split())
    assert "--recipe fast is meant for 5 to 40 epochs" in process.stderr
    header = exit_file.read_header(tmp_path / "DIGITS-AuxResNet-14-3" / "exit-14.safetensors")
    assert (header["options"]["recipe"], header["options"]["optimizer"]) == ("fast", "muon")
