"""Batch norms folded for evaluation, and written out for the compiler, compute the same."""

import pytest
import torch

from models import names, networks
from models.folding import folded
from models.norm import BatchNorm


@pytest.mark.parametrize(
    "shape", [{"depth": 14}, {"depth": 14, "widen": 2}, {"depth": 20, "shortcut": "B"}, {"depth": 128}]
)
def test_folded_batch_norms_give_the_same_logits(shape):
    torch.manual_seed(0)
    network = networks.build(names.configure(outputs=2, **shape), 10)
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
