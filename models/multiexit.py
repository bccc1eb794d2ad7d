"""A trunk cut into segments, with a classifier ("exit") at the end of each: what multi-way backpropagation trains.

Reference: Guo, Tan et al., "The Shallow End: Empowering Shallower Deep-Convolutional Networks through Auxiliary
Outputs", arXiv 1611.01773.
"""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models import exits
from models.layers import Linear
from models.norm import BatchNorm


@dataclass(frozen=True)
class Trunk:
    """What exits are put on: a stem and the blocks behind it, in order.

    `channels` and `positions` say of each block how many channels it puts out, and the position of an exit behind it.
    Only `BatchNorm` may normalise across pictures. A block may have a method `fold`, by which it takes its batch norms
    into its convolutions, in place, for evaluation.
    """

    stem: nn.Module
    blocks: Sequence[nn.Module]
    channels: Sequence[int]
    positions: Sequence[int]


class Head(nn.Module):
    """What turns the output of a segment into logits: BN → ReLU → global average pooling → linear."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = BatchNorm(channels)
        self.linear = Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """N×channels×H×W -> N×classes logits."""
        return self.linear(F.relu(self.norm(x), inplace=True).mean((2, 3)))


def for_other_classes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What of a network's state is for any classes: all but the linear layers, which have a row for each class."""
    return {name: tensor for name, tensor in state.items() if not (name.startswith("heads.") and ".linear." in name)}


class MultiExit(nn.Module):
    """A trunk with exits at `positions`, shallow to deep; heads at those of them that are `kept` (None: all).

    The trunk ends at the last of the kept ones, so that the network with one kept exit is that exit's standalone model:
    its state is a subset of the whole network's, under the same names, and its logits are the whole network's logits at
    that exit.
    """

    def __init__(self, trunk: Trunk, positions: Sequence[int], classes: int, kept: Sequence[int] | None = None) -> None:
        super().__init__()
        kept = sorted(positions if kept is None else kept)
        self.positions = tuple(position for position in positions if position <= kept[-1])
        self.classes = classes
        self.share_grad_input = False  # recompute activations in the backward pass instead of keeping them
        self.stem = trunk.stem
        self.segments = nn.ModuleList()
        self.heads = nn.ModuleDict()
        start = 0
        for position in self.positions:
            end = trunk.positions.index(position) + 1
            self.segments.append(nn.Sequential(*trunk.blocks[start:end]))
            if position in kept:
                self.heads[str(position)] = Head(trunk.channels[end - 1], classes)
            start = end
        self.apply(_initialise)

    @property
    def exits(self) -> tuple[int, ...]:
        """The positions whose logits `forward` returns."""
        return tuple(int(position) for position in self.heads)

    def run(self, images: Tensor) -> Generator[Tensor, Tensor | None, None]:
        """Normalised images N×3×H×W -> the logits of one exit after another, shallow to deep, each N×classes.

        What lies behind an exit is computed when its successor is asked for; who has seen enough stops asking. Indices
        or a mask of pictures, given to `send`, let only these go on to the next exits.
        """
        recompute = self.share_grad_input and self.training and torch.is_grad_enabled()
        chunk = _chunk(sum(map(len, self.segments)))
        x = self.stem(images)
        for position, segment in zip(self.positions, self.segments, strict=True):
            x = _recomputed(segment, x, chunk) if recompute else segment(x)
            if str(position) in self.heads:
                staying = yield self.heads[str(position)](x)
                x = x if staying is None else x[staying]

    def by_exit(self) -> Iterator[tuple[nn.Sequential, Head]]:
        """For each exit, shallow to deep, the segments that lead to it from the exit before it, joined, the first with
        the stem, and its head."""
        joined = [self.stem]
        for position, segment in zip(self.positions, self.segments, strict=True):
            joined.append(segment)
            if str(position) in self.heads:
                yield nn.Sequential(*joined), self.heads[str(position)]
                joined = []

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images N×3×H×W -> the logits of each exit, shallow to deep, each N×classes."""
        return list(self.run(images))

    def exit_state(self, position: int) -> dict[str, Tensor]:
        """The part of the state that the standalone model of exit `position` consists of."""
        segments = range(self.positions.index(position) + 1)
        wanted = ("stem.", f"heads.{position}.", *(f"segments.{index}." for index in segments))
        return {name: tensor for name, tensor in self.state_dict().items() if name.startswith(wanted)}

    def learns(self, parameter: str, weights: Sequence[float]) -> bool:
        """Whether the parameter of this name learns, if the losses of the exits have these weights."""
        learning = exits.learning(weights, self.exits)
        position = self.exit_of(parameter)
        return position in learning if parameter.startswith("heads.") else position <= learning[-1]

    def exit_of(self, parameter: str) -> int:
        """The position of the first exit that a parameter, by its name, leads to."""
        part, index, *_ = parameter.split(".")
        if part == "stem":
            return self.positions[0]
        return int(index) if part == "heads" else self.positions[int(index)]


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
