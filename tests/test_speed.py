"""What makes it fast changes nothing: folded and compiled arithmetic, 16 bits, and a host that does not wait."""

import argparse
import time

import pytest
import torch
from conftest import SMALL
from safetensors.torch import load_file

import checkpoints
import main
import opts
from datasets import digits
from datasets.loaders import training_batches
from datasets.transforms import Augmentation, Normalise
from inference.evaluation import Sums
from models import names
from models.auxresnet import AuxResNet
from models.folding import folded
from models.norm import BatchNorm
from training.trainer import Trainer

CPU = [torch.device("cpu")]
BATCH = 8  # half precision is slow on most processors


def trainer(*options):
    settings = opts.parse(["--data", "DIGITS", "--batchsize", str(BATCH), *options])
    torch.manual_seed(0)
    network = AuxResNet(names.parse("AuxResNet-8-2"), 10)
    return Trainer(network, Normalise((128.0,) * 3, (64.0,) * 3), (1.0, 1.0), CPU, settings)


def batches(count):
    pictures = digits.load(None, "train").take(range(BATCH * count))
    return training_batches(
        pictures, batch_size=BATCH, epochs=1, done=0, seed=0, workers=0, augmentation=Augmentation(4), pin=False
    )


def train(run, some_batches, show=lambda count, result: None):
    return run.train_epoch(some_batches, lambda step: 0.01, Sums(2, CPU[0]), show)


@pytest.mark.parametrize(
    "shape", [{"depth": 14}, {"depth": 14, "widen": 2}, {"depth": 20, "shortcut": "B"}, {"depth": 128}]
)
def test_folded_batch_norms_give_the_same_logits(shape):
    torch.manual_seed(0)
    network = AuxResNet(names.configure(outputs=2, **shape), 10)
    generator = torch.Generator().manual_seed(1)
    for norm in (module for module in network.modules() if isinstance(module, BatchNorm)):
        norm.running_mean.normal_(0, 0.3, generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        torch.nn.init.normal_(norm.bias, 0, 0.2, generator=generator)
    network.eval()
    quick = folded(network)
    assert sum(isinstance(module, BatchNorm) for module in quick.modules()) < sum(
        isinstance(module, BatchNorm) for module in network.modules()
    )
    with torch.inference_mode():
        images = torch.randn(4, 3, 32, 32, generator=generator)
        for plain, fast in zip(network(images), quick(images), strict=True):
            assert (plain - fast).abs().max() <= 1e-5 * plain.abs().max()


def test_batch_norm_written_out_for_the_compiler_is_batch_norm(monkeypatch):
    images = torch.randn(6, 16, 8, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1
    results = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        torch.manual_seed(0)
        norm, x = BatchNorm(16), images.clone().requires_grad_()
        torch.nn.init.uniform_(norm.weight)
        y = norm(x)
        y.square().mul(torch.arange(8.0)).sum().backward()
        results.append([y, x.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()])
    for native, written_out in zip(*results, strict=True):
        torch.testing.assert_close(written_out, native, rtol=1e-4, atol=1e-4)


def test_compiled_steps_learn_what_plain_ones_learn():
    results = [trainer("--compile", flag) for flag in ("false", "true")]
    results = [train(run, batches(3)) for run in results]
    assert results[1].loss == pytest.approx(results[0].loss, rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "half"])
def test_16_bit_training(precision, tmp_path):
    main.main([*SMALL[:2], "--depth", "8", "--trainSize", "32", "--batchsize", "8", "--nEpochs", "3",
               "--precision", precision, "--save", str(tmp_path)])  # fmt: skip
    folder = tmp_path / "DIGITS-AuxResNet-8-2"
    weights = load_file(folder / "exit-8.safetensors").values()
    assert {tensor.dtype for tensor in weights} == {torch.float32, torch.int64}
    state = checkpoints.read_state(folder, pytest.fail)
    assert bool(state["training"]["scaler"]) == (precision == "half")
    assert state["log"][-1]["train_loss"] < state["log"][0]["train_loss"]


@pytest.mark.parametrize("precision", ["float", "bf16", "half"])
def test_the_host_reads_results_at_the_end_of_an_epoch_only(precision, monkeypatch):
    """However many steps: no `.item()`, `.cpu()`, `bool()` … but the one reading of losses and errors."""
    counts = []
    for steps in (2, 5):
        run, prepared = trainer("--precision", precision), list(batches(steps))
        reads = argparse.Namespace(count=0)
        with monkeypatch.context() as patch:
            patch.setattr(time, "monotonic", lambda: 0.0)  # never a second gone: nothing to show
            for name in ("item", "cpu", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__"):
                patch.setattr(torch.Tensor, name, counting(getattr(torch.Tensor, name), reads))
            train(run, iter(prepared))
        counts.append(reads.count)
    assert counts == [3, 3]  # the wrong answers, the loss, whether all was finite


def counting(method, reads):
    def counted(tensor, *arguments, **options):
        reads.count += 1
        return method(tensor, *arguments, **options)

    return counted


def test_progress_is_read_once_a_second(monkeypatch):
    run, shown = trainer(), []
    clock = iter(range(0, 100))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) * 0.3)
    train(run, batches(9), lambda count, result: shown.append(result is not None))
    assert shown == [False, False, False, True, False, False, False, True, False]
