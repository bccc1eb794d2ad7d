"""Networks by their configuration: built, laid out without memory, rebuilt from saved weights, and what they cost.

What a new trunk takes is in `docs/extending.md`.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models import preresnet
from models.multiexit import MultiExit
from models.names import Configuration


def build(configuration: Configuration, classes: int, kept: Sequence[int] | None = None) -> MultiExit:
    """The network of a configuration, freshly initialised, with heads at the exits `kept` (None: all of them)."""
    return MultiExit(preresnet.trunk(configuration), configuration.exits, classes, kept)


def layout(configuration: Configuration, classes: int, position: int) -> dict[str, Tensor]:
    """The state of an exit's standalone model as tensors without memory: names, shapes and types."""
    return _without_memory(configuration, classes, (position,)).state_dict()


def from_state(
    configuration: Configuration, classes: int, kept: Sequence[int], state: Mapping[str, Tensor]
) -> MultiExit:
    """The network with these exits and weights, ready to evaluate. Raises RuntimeError where names or shapes differ."""
    network = _without_memory(configuration, classes, kept)  # every tensor comes from the state
    network.load_state_dict(state, assign=True)
    return network.eval()


def _without_memory(configuration: Configuration, classes: int, kept: Sequence[int]) -> MultiExit:
    """The network as `build` gives it, of tensors that have shapes and types, but neither memory nor values."""
    with torch.device("meta"):
        return build(configuration, classes, kept)


@dataclass(frozen=True)
class Cost:
    """What a standalone model takes: trainable parameters, and multiply-adds (MACs) for one picture."""

    parameters: int
    macs: int


def cost(configuration: Configuration, classes: int, position: int, side: int) -> Cost:
    """The cost of one exit's standalone model on a 3×side×side picture, counted without allocating the network.

    AuxResNet-56-5 with 10 classes: 33,338 / 93,914 / 186,714 / 483,098 / 853,018 parameters.
    """
    network = _without_memory(configuration, classes, (position,)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, side, side, device="meta"))
    return Cost(sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2)


def macs_to_exits(configuration: Configuration, network: MultiExit, side: int) -> list[int]:
    """The multiply-adds for a picture of side×side pixels that leaves at each exit: those of the exit's standalone
    model, and those of the heads that it passes on the way."""
    alone = [cost(configuration, network.classes, position, side).macs for position in network.exits]
    heads = itertools.accumulate((head.linear.weight.numel() for head in network.heads.values()), initial=0)
    return [sum(parts) for parts in zip(alone, heads, strict=False)]  # its own head is in the model of an exit


def odd_values(weights: Mapping[str, Tensor]) -> str | None:
    """Which of the tensors of a network has values that no training gives, and what is wrong with them; None: none."""
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            return f"{name} has numbers that are not finite"
        if name.endswith((".running_var", ".num_batches_tracked")) and (tensor < 0).any():
            return f"{name} is below 0"
    return None
