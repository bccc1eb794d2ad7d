"""The network beside its formula, written out once more: a pre-activation ResNet (He et al., arXiv 1603.05027) whose
exits each have a batch norm, ReLU, global average pooling and a linear layer."""

import pytest
import torch
from torch.nn import functional as F

from models import names, networks


def normalised(x, state, name, training):
    """Batch norm and ReLU."""
    mean, var, weight, bias = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.relu(F.batch_norm(x, mean.clone(), var.clone(), weight, bias, training))


def block(x, state, name, stride, first, dropout, training):
    """One residual block; `stride` is that of its first 3×3 convolution, `first` whether it begins a stage."""
    kernels = [state[key] for key in sorted(state) if key.startswith(f"{name}.convolutions.")]
    branch = before = normalised(x, state, f"{name}.norms.0", training)
    for number, kernel in enumerate(kernels):
        if number:
            branch = normalised(branch, state, f"{name}.norms.{number}", training)
        if number == len(kernels) - 1:
            branch = F.dropout(branch, dropout, training)
        strided = number == (0 if len(kernels) == 2 else 1)
        branch = F.conv2d(branch, kernel, stride=stride if strided else 1, padding=kernel.shape[-1] // 2)
    way = before if first else x
    if f"{name}.shortcut.weight" in state:
        return branch + F.conv2d(way, state[f"{name}.shortcut.weight"], stride=stride)
    way = way[:, :, ::stride, ::stride]
    return branch + torch.cat([way, way.new_zeros(len(way), branch.shape[1] - way.shape[1], *way.shape[2:])], 1)


def expected(configuration, layers, state, images, training):
    """The logits of each exit."""
    blocks = (configuration.depth - 2) // layers
    x, found, start = F.conv2d(images, state["stem.weight"], padding=1), [], 0
    for segment, position in enumerate(configuration.exits):
        end = blocks if position == configuration.depth else (position - 1) // layers
        for number in range(start, end):
            first, stride = number % (blocks // 3) == 0, 2 if number in (blocks // 3, 2 * blocks // 3) else 1
            name = f"segments.{segment}.{number - start}"
            x = block(x, state, name, stride, first, configuration.dropout, training)
        pooled = normalised(x, state, f"heads.{position}.norm", training).mean((2, 3))
        found.append(F.linear(pooled, *(state[f"heads.{position}.linear.{part}"] for part in ("weight", "bias"))))
        start = end
    return found


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("name", "layers"), [("AuxResNet-20-3", 2), ("AuxResNet-14-2/2", 2), ("AuxResNet-29-3-dropout", 3)]
)
def test_the_logits_are_those_of_the_formula(name, layers, training):
    """With shortcuts of type A and B, basic and bottleneck blocks."""
    torch.manual_seed(0)
    configuration = names.parse(name)
    network = networks.build(configuration, 7).double()
    with torch.no_grad():  # none of them as they are at first, when norms change nothing
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.rand_like(parameter))
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    network.train()(images)
    network.train(training)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    torch.manual_seed(1)  # dropout
    logits = network(images)
    torch.manual_seed(1)
    for found, wanted in zip(logits, expected(configuration, layers, state, images, training), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
