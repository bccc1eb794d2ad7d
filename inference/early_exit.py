"""Early exit: a rule says when a picture has seen enough of the network; `simulate` and `route` obey it.

A picture leaves at the first exit whose top probability, of softmax(logits / temperature), reaches the exit's
threshold. `simulate` applies a rule to stored logits; `route` computes no more of the network than it needs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.multiexit import MultiExit

NEVER = 2.0  # a threshold that no probability reaches, whatever it is rounded to
STEPS = 16  # sizes that a batch has at most on its way through the exits of a network on a GPU


@dataclass(frozen=True)
class Rule:
    """When pictures leave; each tuple goes from the shallow exits to the deep ones."""

    positions: tuple[int, ...]
    temperatures: tuple[float, ...]
    thresholds: tuple[float, ...]  # of the top probability; 0 at the last exit, which takes whatever comes


def only(position: int) -> Rule:
    """The rule by which every picture leaves at one exit."""
    return Rule((position,), (1.0,), (0.0,))


class Routing(NamedTuple):
    """What became of N pictures."""

    exits: Tensor  # N int64, which exit each one left at, counted from 0
    classes: Tensor  # N int64, predictions

    def figures(self, targets: Tensor, macs: Sequence[int]) -> dict[str, Any]:
        """The error in percent, the average multiply-adds for one picture (`macs` are those to each exit), and how many
        pictures leave at each exit, under the names that they have in a policy."""
        counts = torch.bincount(self.exits, minlength=len(macs)).tolist()
        return {
            "error": 100 * (self.classes != targets).sum().item() / len(targets),
            "macs": sum(n * cost for n, cost in zip(counts, macs, strict=True)) / len(targets),
            "histogram": tuple(counts),
        }


def probable(logits: Tensor, temperature: float) -> Tensor:
    """N×C logits of an exit -> N×C probabilities, float32."""
    return (logits.float() / temperature).softmax(1)


@torch.inference_mode()
def simulate(logits: Sequence[Tensor], rule: Rule) -> Routing:
    """What would become of N pictures whose N×C logits at every exit are known."""
    decisions = [probable(z, t).max(1) for z, t in zip(logits, rule.temperatures, strict=True)]
    probabilities, classes = (torch.stack(part) for part in zip(*decisions, strict=True))  # K×N
    exits = leaving(probabilities, rule.thresholds)
    return Routing(exits, classes.gather(0, exits[None])[0])


def leaving(probabilities: Tensor, thresholds: Sequence[float]) -> Tensor:
    """K×N top probabilities -> the exit at which each picture leaves, N int64: the first whose threshold is reached."""
    bounds = torch.tensor(thresholds, device=probabilities.device)
    # Not >=, because a picture whose probabilities are no numbers leaves at the first exit, as in `visits`.
    return (~(probabilities < bounds[:, None])).int().argmax(0)


def route(network: MultiExit, images: Tensor, rule: Rule, smallest: int = 1) -> Routing:
    """Normalised images N×3×H×W -> what becomes of them, by `visits`."""
    probabilities, exits = outcomes(network, images, rule, smallest)
    return Routing(exits, probabilities.argmax(1))


@torch.inference_mode()
def outcomes(network: MultiExit, images: Tensor, rule: Rule, smallest: int = 1) -> tuple[Tensor, Tensor]:
    """Normalised images N×3×H×W -> the probabilities of each at the exit where it leaves, N×C float32, and which exit
    that is, N int64, counted from 0; by `visits`."""
    exits = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    visited = visits(network, images, rule, smallest)
    _, probabilities = next(visited)  # of all pictures
    for index, (there, found) in enumerate(visited, 1):
        exits.index_fill_(0, there, index)
        probabilities.index_copy_(0, there, found)
    return probabilities, exits


def visits(network: MultiExit, images: Tensor, rule: Rule, smallest: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised images N×3×H×W -> for one exit after another, which n of them come to it (int64), and what their
    probabilities are there (n×C float32): the last that a picture meets are its answer.

    What lies behind an exit is computed for those that stay. A batch does not shrink below `smallest`; the first
    picture that stays fills it up. The host waits for the device once in each segment, to learn how many stay. On a GPU
    a batch shrinks in steps (see `_room`). A picture's logits depend on the size of the batch that it is computed in by
    rounding alone (on CPUs, in float32: not at all, as far as was seen). So `simulate` on the logits of the whole batch
    gives the same, unless a probability lies within rounding of a threshold or of another.
    """
    there = rows = torch.arange(len(images), device=images.device)  # which pictures stay, in which rows of the batch
    run, kept, size = network.run(images), None, len(images)  # `kept`: the rows that go on, where the batch shrinks
    for index, (temperature, threshold) in enumerate(zip(rule.temperatures, rule.thresholds, strict=True)):
        logits = run.send(kept)
        probabilities = probable(logits if len(rows) == size else logits[rows], temperature)
        yield there, probabilities
        if index == len(rule.positions) - 1:
            return
        stay, kept = (probabilities.amax(1) < threshold).nonzero()[:, 0], None
        if not len(stay):
            return
        if len(stay) == len(there):  # of a single picture on its way, always
            continue
        there, rows = there[stay], rows[stay]
        if (room := max(smallest, _room(len(stay), len(images), images.device))) < size:
            kept = torch.cat([rows, rows[:1].expand(room - len(stay))])
            rows, size = torch.arange(len(stay), device=images.device), room


def _room(staying: int, pictures: int, device: torch.device) -> int:
    """The size of the batch in which those of `pictures` that stay are computed: on a GPU a multiple of a 16th of all,
    because cuDNN tries its convolutions anew for each size that it meets. On a CPU the fillers would cost 4 % of the
    time.
    """
    step = 1 if device.type == "cpu" else -(-pictures // STEPS)
    return -(-staying // step) * step
