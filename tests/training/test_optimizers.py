"""Who moves which parameters, and Muon, whose steps are orthogonal in either precision."""

import pytest
import torch
from torch.nn import functional as F

from examples import CPU, NORMALISE, network
from training.muon import RATE, Muon, orthogonalised
from training.optimizers import Optimization
from training.trainer import Trainer


def test_orthogonalised_matrices_have_singular_values_near_1():
    matrices = torch.randn(3, 16, 144, generator=torch.Generator().manual_seed(0))
    result = orthogonalised(matrices)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    cosine = F.cosine_similarity(result.flatten(), (left @ right).flatten(), dim=0)
    assert cosine > 0.98


@pytest.mark.parametrize("decades", [1, 4])
def test_in_bfloat16_rounding_leaves_no_singular_value_too_large(decades):
    """Momentum has singular values of all sizes; those below the rounding of XXᵀ must not grow without bound."""
    random = torch.randn(2, 64, 576, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(random, full_matrices=False)
    matrices = (left * torch.logspace(0, -decades, 64)) @ right
    exact, rounded = orthogonalised(matrices), orthogonalised(matrices.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert torch.linalg.svdvals(rounded.float()).max() < 1.3
    aims = [F.cosine_similarity(found.float().flatten(), (left @ right).flatten(), dim=0) for found in (exact, rounded)]
    assert aims[1] > aims[0] - 0.01


def test_in_float32_the_iteration_is_what_it_always_was():
    a, b, c = 3.4445, -4.7750, 2.0315
    matrices = torch.randn(2, 16, 144, generator=torch.Generator().manual_seed(0))
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True)
    gram, identity = x @ x.mT, torch.eye(16).expand(2, 16, 16)
    product = identity
    for _ in range(5):
        factor = torch.baddbmm(a * identity + b * gram, gram, gram, alpha=c)
        product, gram = factor @ product, factor @ gram @ factor
    assert orthogonalised(matrices).equal(product @ x)


def test_muon_follows_the_precision_of_the_network_and_keeps_weights_in_float32():
    trainers = [
        Trainer(network("ResNet-8"), NORMALISE, CPU, optimization=Optimization("muon"), dtype=dtype)
        for dtype in (None, torch.bfloat16)
    ]
    assert [trainer.optimizers[1].dtype for trainer in trainers] == [torch.float32, torch.bfloat16]
    muon = trainers[1].optimizers[1]
    (group,) = muon.param_groups
    for kernel in group["params"]:
        kernel.grad = torch.randn_like(kernel)
    muon.step()
    assert {kernel.dtype for kernel in group["params"]} == {torch.float32}
    assert {state["momentum"].dtype for state in muon.state.values()} == {torch.float32}


def test_muon_moves_kernels_by_orthogonal_steps_and_resumes():
    generator = torch.Generator().manual_seed(0)
    gradients = [[torch.randn(shape, generator=generator) for shape in ((8, 4, 3, 3), (32, 4, 1, 1))] for _ in range(4)]

    def moved(start, state, some):
        kernels = [torch.nn.Parameter(tensor.clone()) for tensor in start]
        muon = Muon(kernels, lr=0.1, momentum=0.9, weight_decay=0.0)
        if state:
            muon.load_state_dict(state)
        for step in some:
            for kernel, gradient in zip(kernels, step, strict=True):
                kernel.grad = gradient
            muon.step()
        return [kernel.detach() for kernel in kernels], muon.state_dict()

    zeros = [torch.zeros_like(gradient) for gradient in gradients[0]]
    first, _ = moved(zeros, None, gradients[:1])
    for kernel in first:
        values = torch.linalg.svdvals(kernel.movedim(1, -1).flatten(1)) / (0.1 * RATE)
        assert values.min() > 0.6
        assert values.max() < 1.3
    whole, _ = moved(zeros, None, gradients)
    again, _ = moved(*moved(zeros, None, gradients[:2]), gradients[2:])
    forgetful, _ = moved(moved(zeros, None, gradients[:2])[0], None, gradients[2:])
    assert all(a.equal(b) for a, b in zip(whole, again, strict=True))
    assert not any(a.equal(b) for a, b in zip(whole, forgetful, strict=True))


def test_what_decays_and_who_moves_it():
    model = network()
    sgd, muon = Optimization("muon", weight_decay=0.01, decay_norms=False).of(model, lr=0.1)
    kernels = {id(p) for p in muon.param_groups[0]["params"]}
    assert kernels == {id(p) for name, p in model.named_parameters() if "convolutions" in name}
    decaying, spared = (group["params"] for group in sgd.param_groups)
    assert {id(p) for p in decaying} == {
        id(model.stem.weight),
        *(id(head.linear.weight) for head in model.heads.values()),
    }
    assert all(p.ndim == 1 for p in spared)
    assert [group["weight_decay"] for group in sgd.param_groups] == [0.01, 0.0]
    assert len(kernels) + len(decaying) + len(spared) == len(list(model.parameters()))
    (alone,) = Optimization().of(model, lr=0.1)
    assert [len(group["params"]) for group in alone.param_groups] == [len(list(model.parameters()))]
