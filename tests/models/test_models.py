"""The network: sizes, exits, initialisation, the gradient of the summed loss, recomputation."""

import pytest
import torch
from torch import nn

from models import names, networks
from models.losses import multiway_loss
from models.networks import cost, from_state


def build(name, classes=10, **changes):
    torch.manual_seed(0)
    configuration = names.parse(name) if not changes else names.configure(**changes)
    return configuration, networks.build(configuration, classes)


def batch(count=8, classes=10):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, 32, 32, generator=generator).contiguous(memory_format=torch.channels_last)
    return images, torch.randint(classes, (count,), generator=generator)


def gradients(network, images, targets, weights):
    network.zero_grad(set_to_none=True)
    multiway_loss(network(images), targets, weights)[0].backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("depth", "parameters"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_parameters_of_plain_networks(depth, parameters):
    assert cost(names.parse(f"ResNet-{depth}"), 10, depth, 32).parameters == parameters


def test_parameters_of_the_exits_of_56_5():
    configuration = names.parse("AuxResNet-56-5")
    counts = [cost(configuration, 10, position, 32).parameters for position in configuration.exits]
    assert counts == [33_338, 93_914, 186_714, 483_098, 853_018]
    assert [count // 10_000 for count in counts] == [3, 9, 18, 48, 85]  # the paper's table: 0.03 … 0.85 M, cut off


def test_resnet_1001_has_its_published_size():
    assert cost(names.parse("ResNet-1001"), 10, 1001, 32).parameters == 10_285_722  # He et al. give 10.2 M
    assert round(cost(names.parse("ResNet-164"), 10, 164, 32).parameters / 1e6, 1) == 1.7


def count_macs(network):
    """Multiply-adds of all convolutions and linear layers on one picture, counted as they happen."""
    macs = []

    def convolution(module, _, output):
        macs.append(module.weight.numel() * output[0, 0].numel())

    def linear(module, *_):
        macs.append(module.weight.numel())

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(convolution)
        elif isinstance(module, nn.Linear):
            module.register_forward_hook(linear)
    network(batch(1)[0])
    return sum(macs)


def test_cost_is_that_of_the_standalone_model():
    configuration = names.parse("AuxResNet-26-2")
    for position in configuration.exits:
        alone = networks.build(configuration, 10, (position,))
        price = cost(configuration, 10, position, 32)
        assert price.parameters == sum(p.numel() for p in alone.parameters())
        assert price.macs == count_macs(alone)


@pytest.mark.parametrize("name", ["AuxResNet-56-5", "AuxResNet-44-2-dropout", "AuxResNet-29-3", "ResNet-20/2"])
def test_logits_of_every_exit(name):
    configuration, network = build(name, classes=7)
    logits = network(batch(2)[0])
    assert network.exits == configuration.exits
    assert [tuple(z.shape) for z in logits] == [(2, 7)] * len(configuration.exits)


def test_initialisation():
    _, network = build("AuxResNet-26-2/10")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
            assert module.bias is None
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all()
            assert module.bias.eq(0).all()
        elif isinstance(module, nn.Linear):
            assert module.bias.eq(0).all()


def test_type_a_shortcut_has_no_parameters_and_type_b_is_a_convolution():
    counts = {}
    for kind in "AB":
        _, network = build("", depth=20, outputs=1, shortcut=kind)
        shortcuts = [m for name, m in network.named_modules() if name.endswith(".shortcut")]
        counts[kind] = [sum(p.numel() for p in shortcut.parameters()) for shortcut in shortcuts]
    assert sum(counts["A"]) == 0
    assert [count for count in counts["B"] if count] == [16 * 32, 32 * 64]


def test_type_a_shortcut_takes_every_second_pixel_and_pads_with_zeros():
    _, network = build("ResNet-20")
    block = network.segments[0][3]  # the first of the second stage
    x = torch.randn(2, 16, 8, 8)
    padded = block.shortcut(x)
    assert padded.shape == (2, 32, 4, 4)
    assert padded[:, :16].equal(x[:, :, ::2, ::2])
    assert padded[:, 16:].eq(0).all()


def test_gradient_of_the_summed_loss_is_the_weighted_sum_of_the_single_gradients():
    _, network = build("AuxResNet-56-5")
    network.double()
    images, targets = batch()
    images, weights = images.double(), (0.5, 1.0, 2.0, 0.25, 1.0)
    together = gradients(network, images, targets, weights)
    added = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for index, weight in enumerate(weights):
        single = gradients(network, images, targets, [float(i == index) for i in range(len(weights))])
        for name, gradient in single.items():
            added[name] += weight * gradient
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, added[name], rtol=1e-9, atol=1e-12)


def test_weights_of_zero_but_the_last_are_plain_training():
    configuration, network = build("AuxResNet-20-3")
    plain = networks.build(configuration, 10, (20,))
    plain.load_state_dict(network.exit_state(20))
    images, targets = batch(16)
    before = {name: p.clone() for name, p in network.named_parameters()}
    for net, weights in ((network, (0.0, 0.0, 1.0)), (plain, (1.0,))):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
        for _ in range(3):
            optimizer.zero_grad()
            multiway_loss(net(images), targets, weights)[0].backward()
            optimizer.step()
    for name, tensor in plain.state_dict().items():
        assert tensor.equal(network.state_dict()[name]), name
    assert not network.stem.weight.equal(before["stem.weight"])
    assert network.heads["7"].linear.weight.equal(before["heads.7.linear.weight"])  # no loss, no decay


@pytest.mark.parametrize("name", ["AuxResNet-56-5", "AuxResNet-26-2-dropout", "AuxResNet-29-3"])
def test_each_exit_alone_gives_the_same_bits(name):
    configuration, network = build(name)
    images, _ = batch(16)
    network(images)  # statistics that are not the initial ones
    network.eval()
    with torch.inference_mode():
        together = network(images)
        for position, expected in zip(configuration.exits, together, strict=True):
            alone = from_state(configuration, 10, (position,), network.exit_state(position))
            (logits,) = alone(images)
            assert logits.equal(expected), position


@pytest.mark.parametrize("name", ["AuxResNet-56-5", "AuxResNet-26-2-dropout"])
def test_share_grad_input_changes_neither_gradients_nor_statistics(name):
    images, targets = batch()
    results = []
    for recompute in (False, True):
        configuration, network = build(name)
        network.share_grad_input = recompute
        torch.manual_seed(3)
        found = gradients(network, images, targets, [1.0] * len(configuration.exits))
        results.append({**found, **dict(network.named_buffers())})
    kept, recomputed = results
    assert kept.keys() == recomputed.keys()
    for name, tensor in kept.items():
        assert tensor.equal(recomputed[name]), name
    assert kept["segments.0.0.norms.0.num_batches_tracked"] == 1


def test_resnet_1001_takes_a_step_with_share_grad_input():
    _, network = build("ResNet-1001")
    network.share_grad_input = True
    before = network.stem.weight.detach().clone()
    images, targets = batch(2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    loss, _ = multiway_loss(network(images), targets, (1.0,))
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    assert not network.stem.weight.equal(before)
