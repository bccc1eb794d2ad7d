"""What makes training fast changes nothing: compiled steps, 16 bits, and a host that does not wait."""

import argparse
import contextlib
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

import main
from datasets import digits
from datasets.loaders import training_batches
from datasets.transforms import Augmentation
from examples import CPU, NORMALISE, needs_compiler, network
from models import multiexit
from models.metrics import Sums
from programs import signal_during
from runs import SMALL, last_state
from system.arithmetic import DTYPES
from system.errors import Stopped
from system.stopping import stoppable
from training.plan import Plan
from training.trainer import Trainer

pytestmark = pytest.mark.slow

BATCH = 8  # half precision is slow on most processors


def trainer(precision="float", compiled=False, name="AuxResNet-8-2", stop=None):
    batch = BATCH * compiled
    return Trainer(network(name), NORMALISE, CPU, dtype=DTYPES[precision], compiled_batch=batch, stop=stop)


def batches(count):
    pictures = digits.load(None, "train").take(range(BATCH * count))
    plan = Plan(len(pictures), BATCH, epochs=1, seed=0, side=32, first_side=32)
    return training_batches(pictures, plan.after(0), seed=0, workers=0, augmentation=Augmentation(4), pin=False)


def train(run, some_batches):
    sums = Sums(2, CPU[0])
    for _ in run.steps(some_batches, sums):
        pass
    run.watch.check()
    return sums.result()


def weights(run):
    return torch.cat([parameter.detach().flatten() for parameter in run.network.parameters()])


@needs_compiler
def test_compiled_steps_learn_what_plain_ones_learn():
    runs = [trainer(compiled=flag) for flag in (False, True)]
    before = weights(runs[0])
    losses = [train(run, batches(3)).loss for run in runs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    plain, compiled = (weights(run) - before for run in runs)
    assert (compiled - plain).norm() < 0.05 * plain.norm()


@pytest.mark.parametrize("precision", ["bf16", "half"])
def test_16_bit_training(precision, tmp_path):
    main.main([*SMALL[:2], "--depth", "8", "--trainSize", "32", "--batchsize", "8", "--nEpochs", "3",
               "--precision", precision, "--save", str(tmp_path)])  # fmt: skip
    folder = tmp_path / "DIGITS-AuxResNet-8-2"
    weights = load_file(folder / "exit-8.safetensors").values()
    assert {tensor.dtype for tensor in weights} == {torch.float32, torch.int64}
    state = last_state(folder)
    assert bool(state["training"]["scaler"]) == (precision == "half")
    assert state["log"][-1]["train_loss"] < state["log"][0]["train_loss"]


@pytest.mark.parametrize("first", [0, 1])
def test_steps_that_the_scaler_skips_leave_no_trace(first):
    """Neither the very first one, which makes the momenta in PyTorch's fused SGD, nor a later one."""
    results = []
    for overflows in (False, True):
        run, given = trainer("half"), list(batches(3))
        if first:
            train(run, iter(given[:1]))
        if overflows:
            usual = run.scaler.state_dict()
            run.scaler.load_state_dict({**usual, "scale": 2.0**40})
            torch.empty(3 * 10**6).fill_(7.0)  # what momenta that nobody wrote would be made of
            before = [p.detach().clone() for p in run.network.parameters()]
            statistics = [buffer.clone() for buffer in run.network.buffers()]
            train(run, iter(given[first : first + 1]))
            assert all(p.equal(old) for p, old in zip(run.network.parameters(), before, strict=True))
            for buffer, old in zip(run.network.buffers(), statistics, strict=True):
                buffer.copy_(old)
            run.scaler.load_state_dict(usual)
        train(run, iter(given[first : first + 1]))
        results.append([*run.network.parameters(), *(s["momentum_buffer"] for s in run.optimizers[0].state.values())])
    assert all(a.equal(b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(("field", "value"), [("scale", 0.0), ("scale", float("nan")), ("_growth_tracker", -1)])
def test_a_scaler_that_cannot_be_is_refused(field, value):
    run = trainer("half")
    state = run.state()
    state["scaler"][field] = value
    with pytest.raises(ValueError, match="scaler has a scale or a count that no scaler has"):
        run.restore(state, 0)


@pytest.mark.parametrize("precision", ["float", "bf16", "half"])
def test_the_host_reads_results_at_the_end_of_an_epoch_only(precision, monkeypatch):
    """However many steps: no `.item()`, `.cpu()`, `bool()` … but the one reading of losses and errors."""
    counts = []
    for steps in (2, 5):
        run, prepared = trainer(precision), list(batches(steps))
        reads = argparse.Namespace(count=0)
        with monkeypatch.context() as patch:
            for name in ("item", "cpu", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__"):
                patch.setattr(torch.Tensor, name, counting(getattr(torch.Tensor, name), reads))
            train(run, iter(prepared))
        counts.append(reads.count)
    assert counts == [3, 3]  # the wrong answers, the loss, whether all was finite


def terminate(_):
    os.kill(os.getpid(), signal.SIGTERM)


def interrupted(frozen, enter=multiexit._FrozenStatistics.__enter__):
    enter(frozen)
    terminate(None)


def counting(method, reads):
    def counted(tensor, *arguments, **options):
        reads.count += 1
        return method(tensor, *arguments, **options)

    return counted


@pytest.mark.parametrize("where", ["forward", "backward", "recomputation", "the way out"])
def test_a_step_that_is_broken_off_leaves_no_trace(where, monkeypatch):
    """Batch norm statistics have moved by then, and dropout has drawn random numbers."""
    results = []
    for broken_off in (False, True):
        torch.manual_seed(3)
        with stoppable() as stop:
            run, given = trainer(stop=stop, name="AuxResNet-8-2-dropout"), list(batches(3))
            run.network.share_grad_input = where == "recomputation"
            if broken_off:
                with monkeypatch.context() as patch:
                    if where == "forward":
                        signal_during(patch, torch.nn.BatchNorm2d, "forward", 3)
                    elif where == "recomputation":
                        patch.setattr(multiexit._FrozenStatistics, "__enter__", interrupted)
                    elif where == "the way out":  # of the part that a signal may break off
                        signal_during(patch, contextlib._GeneratorContextManager, "__exit__", 1)
                    else:
                        (signalled := run.network.stem.weight).register_hook(terminate)
                    with pytest.raises(Stopped) as kept:  # alive, as while the state is saved
                        train(run, iter(given))
                terminate(None)  # once more: noted
                if where == "backward":
                    signalled._backward_hooks.clear()
                stop.number = None
                assert kept.value.status == 143
            train(run, iter(given))
        results.append(run.network.state_dict())
    assert all(results[0][name].equal(tensor) for name, tensor in results[1].items())
