"""AuxResNet: a residual trunk cut into segments, with a classifier ("exit") at the end of each.

Reference: Guo, Tan et al., "The Shallow End: Empowering Shallower Deep-Convolutional Networks through Auxiliary
Outputs", arXiv 1611.01773. Parameters of each exit's standalone model, AuxResNet-56-5, 10 classes:

    exit         15      25      35       45       56
    parameters   33,338  93,914  186,714  483,098  853,018
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from models import exits as exit_rules
from models.names import Configuration
from models.norm import BatchNorm
from models.preresnet import stem, trunk_blocks


class Head(nn.Module):
    """An exit: BN → ReLU → global average pooling → linear. N×channels×H×W -> N×classes logits."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = BatchNorm(channels)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.relu(self.norm(x), inplace=True).mean((2, 3)))


class AuxResNet(nn.Module):
    """The network of a configuration, or, with `kept`, the part of it that leads to the exits at those positions.

    `AuxResNet(configuration, classes, (p,))` is the standalone model of exit `p`: its state is a subset of the
    whole network's, under the same names, and its logits are the whole network's logits at `p`.
    """

    def __init__(self, configuration: Configuration, classes: int, kept: Sequence[int] | None = None) -> None:
        super().__init__()
        kept = configuration.exits if kept is None else sorted(kept)
        layers = exit_rules.layers_per_block(configuration.depth)
        blocks, channels = trunk_blocks(
            configuration.depth, layers, configuration.widen, configuration.dropout, configuration.shortcut
        )
        self.positions = tuple(p for p in configuration.exits if p <= kept[-1])
        self.share_grad_input = False  # recompute activations in the backward pass instead of keeping them
        self.stem = stem()
        self.segments = nn.ModuleList()
        self.heads = nn.ModuleDict()
        start = 0
        for position in self.positions:
            end = (position - 1) // layers
            self.segments.append(nn.Sequential(*blocks[start:end]))
            if position in kept:
                self.heads[str(position)] = Head(channels[end - 1], classes)
            start = end
        self.apply(_initialise)

    @property
    def exits(self) -> tuple[int, ...]:
        """The positions whose logits `forward` returns."""
        return tuple(int(position) for position in self.heads)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images N×3×32×32 -> the logits of each exit, shallow to deep, each N×classes."""
        recompute = self.share_grad_input and self.training and torch.is_grad_enabled()
        chunk = _chunk(sum(map(len, self.segments)))
        x = self.stem(images)
        logits = []
        for position, segment in zip(self.positions, self.segments, strict=True):
            x = _recomputed(segment, x, chunk) if recompute else segment(x)
            if str(position) in self.heads:
                logits.append(self.heads[str(position)](x))
        return logits

    def exit_state(self, position: int) -> dict[str, Tensor]:
        """The part of the state that the standalone model of exit `position` consists of."""
        segments = range(self.positions.index(position) + 1)
        wanted = ("stem.", f"heads.{position}.", *(f"segments.{index}." for index in segments))
        return {name: tensor for name, tensor in self.state_dict().items() if name.startswith(wanted)}


def layout(configuration: Configuration, classes: int, position: int) -> dict[str, Tensor]:
    """The state of an exit's standalone model as tensors without memory: names, shapes and types."""
    with torch.device("meta"):
        return AuxResNet(configuration, classes, (position,)).state_dict()


def from_state(
    configuration: Configuration, classes: int, kept: Sequence[int], state: Mapping[str, Tensor]
) -> AuxResNet:
    """The network with these exits and weights, ready to evaluate. Raises RuntimeError where names or shapes differ."""
    with torch.device("meta"):  # no memory, no initialisation: every tensor comes from the state
        network = AuxResNet(configuration, classes, kept)
    network.load_state_dict(state, assign=True)
    return network.eval()


def _initialise(module: nn.Module) -> None:
    """MSR initialisation over the fan-out (He et al., arXiv 1502.01852, section 2.2), zero biases, BN weight 1."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


class _FrozenStatistics:
    """While open, the batch norms of a module count on copies of their running statistics.

    A recomputed block sees its batch a second time; counting it twice would change the statistics.
    """

    def __init__(self, module: nn.Module) -> None:
        self.norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]

    def __enter__(self) -> None:
        self.kept = [dict(norm._buffers) for norm in self.norms]
        for norm in self.norms:
            norm._buffers.update({name: buffer.clone() for name, buffer in norm._buffers.items()})

    def __exit__(self, *_: object) -> None:
        for norm, kept in zip(self.norms, self.kept, strict=True):
            norm._buffers.update(kept)


def _chunk(blocks: int) -> int:
    """How many blocks to recompute at once in a network of so many.

    In units of one activation of the first stage, the inputs kept take 7/12 · blocks / chunk (a stage has a third of
    the blocks, each stage's activations half the size of those before), the chunk at work 4 · chunk; their sum is
    smallest at about √(blocks / 7).
    """
    return max(1, round(math.sqrt(blocks / 7)))


def _recomputed(segment: nn.Sequential, x: Tensor, size: int) -> Tensor:
    """Run a segment in chunks of `size` blocks, of which only the inputs are kept for the backward pass."""
    for start in range(0, len(segment), size):
        chunk = segment[start : start + size]
        x = checkpoint(
            chunk,
            x,
            use_reentrant=False,
            context_fn=lambda chunk=chunk: (nullcontext(), _FrozenStatistics(chunk)),
        )
    return x


@dataclass(frozen=True)
class Cost:
    """What a standalone model takes: trainable parameters, and multiply-adds (MACs) for one picture."""

    parameters: int
    macs: int


def cost(configuration: Configuration, classes: int, position: int) -> Cost:
    """The cost of one exit's standalone model on a 3×32×32 picture, counted without allocating the network."""
    with torch.device("meta"):
        network = AuxResNet(configuration, classes, (position,)).eval()
        picture = torch.empty(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(picture)
    return Cost(sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2)
