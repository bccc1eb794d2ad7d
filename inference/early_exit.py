"""Early exit: a rule says when a picture has seen enough of the network; `simulate` and `route` obey it.

A picture leaves at the first exit whose top probability, of softmax(logits / temperature), reaches the exit's
threshold. `simulate` applies a rule to stored logits; `route` computes no more of the network than it needs.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.multiexit import MultiExit
from models.names import Configuration
from models.networks import cost
from opts import GOALS, PROTOCOLS
from system import strict
from system.errors import UserError
from system.files import regular, write
from system.output import printable
from system.strict import is_number

FILE = "policy.json"
FORMAT, FORMAT_VERSION = "auxresnet-policy", 2  # version 1 had no protocol
NEVER = 2.0  # a threshold that no probability reaches, whatever it is rounded to
MAX_BYTES = 1 << 20
STEPS = 16  # sizes that a batch has at most on its way through the exits


@dataclass(frozen=True)
class Rule:
    """When pictures leave; each tuple goes from the shallow exits to the deep ones."""

    positions: tuple[int, ...]
    temperatures: tuple[float, ...]
    thresholds: tuple[float, ...]  # of the top probability; 0 at the last exit, which takes whatever comes


def only(position: int) -> Rule:
    """The rule by which every picture leaves at one exit."""
    return Rule((position,), (1.0,), (0.0,))


@dataclass(frozen=True)
class Policy(Rule):
    """A rule, and what it was fitted on."""

    model: str  # `fingerprint` of the network
    dataset: str  # where the held-out pictures are from
    pictures: int  # how many they are; the next three lines are measured on them
    error: float  # percent
    macs: float  # multiply-adds for one picture, on average
    histogram: tuple[int, ...]  # pictures that leave at each exit
    criterion: str  # one of `opts.GOALS`
    limit: float  # what was given for it: multiply-adds, milliseconds, or percentage points of error
    confidence: float | None  # of maxErrorIncrease, 0 … 1
    protocol: str = PROTOCOLS[0]  # one of `opts.PROTOCOLS`


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
    return (~(probabilities < bounds[:, None])).int().argmax(0)


@torch.inference_mode()
def route(network: MultiExit, images: Tensor, rule: Rule, smallest: int = 1) -> Routing:
    """Normalised images N×3×H×W -> what becomes of them, by `visits`."""
    exits, classes = (torch.zeros(len(images), dtype=torch.int64, device=images.device) for _ in Routing._fields)
    for index, (there, probabilities) in enumerate(visits(network, images, rule, smallest)):
        exits[there], classes[there] = index, probabilities.max(1).indices
    return Routing(exits, classes)


@torch.inference_mode()
def visits(network: MultiExit, images: Tensor, rule: Rule, smallest: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised images N×3×H×W -> for one exit after another, which n of them come to it (int64), and what their
    probabilities are there (n×C float32): the last that a picture meets are its answer.

    What lies behind an exit is computed for those that stay. A batch does not shrink below `smallest`; the first
    picture that stays fills it up. The host waits for the device once in each segment, to learn how many stay. On a GPU
    a batch shrinks in steps (see `_room`). A picture's logits depend on the size of the batch that it is computed in by
    rounding alone (on CPUs, in float32: not at all, as far as was seen). So `simulate` on the logits of the whole batch
    gives the same, unless a probability lies within rounding of a threshold or of another.
    """
    there = place = torch.arange(len(images), device=images.device)  # which pictures stay, where in the batch they are
    run, kept, size = network.run(images), None, len(images)
    for index, (temperature, threshold) in enumerate(zip(rule.temperatures, rule.thresholds, strict=True)):
        probabilities = probable(run.send(kept)[place], temperature)
        yield there, probabilities
        if index == len(rule.positions) - 1:
            return
        stay = (probabilities.amax(1) < threshold).nonzero()[:, 0]
        if not len(stay):
            return
        there, place, kept = there[stay], place[stay], None
        if (room := max(smallest, _room(len(stay), len(images), images.device))) < size:
            kept = torch.cat([place, place[:1].expand(room - len(stay))])
            place, size = torch.arange(len(stay), device=images.device), room


def _room(staying: int, pictures: int, device: torch.device) -> int:
    """The size of the batch in which those of `pictures` that stay are computed: on a GPU a multiple of a 16th of all,
    because cuDNN tries its convolutions anew for each size that it meets. On a CPU the fillers would cost 4 % of the
    time.
    """
    step = 1 if device.type == "cpu" else max(1, pictures // STEPS)
    return -(-staying // step) * step


def macs_to_exits(configuration: Configuration, network: MultiExit, side: int) -> list[int]:
    """The multiply-adds for a picture of side×side pixels that leaves at each exit: those of the exit's standalone
    model, and those of the heads that it passes on the way."""
    heads = [head.linear for head in network.heads.values()]
    passed = itertools.accumulate((head.weight.numel() for head in heads[:-1]), initial=0)
    alone = (cost(configuration, heads[0].out_features, position, side).macs for position in network.exits)
    return [sum(parts) for parts in zip(alone, passed, strict=True)]


def fingerprint(network: MultiExit) -> str:
    """SHA-256 over the tensors of every exit's file: exits shallow to deep, tensors by name, in hexadecimal."""
    digest = hashlib.sha256()
    for position in network.exits:
        for name, tensor in sorted(network.exit_state(position).items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(memoryview(tensor.cpu().contiguous().numpy().reshape(-1)))
    return digest.hexdigest()


def as_json(policy: Policy) -> bytes:
    """The content of a policy's file."""
    content = {"format": FORMAT, "formatVersion": FORMAT_VERSION, **asdict(policy)}
    return (json.dumps(content, indent=2) + "\n").encode()


def write_policy(path: Path, policy: Policy) -> None:
    """Write a policy as JSON; UserError where that fails."""
    write(path, as_json(policy))


def read_policy(path: Path) -> Policy:
    """The policy in a file; UserError, naming the file, for anything that `write_policy` does not write."""
    if path.exists():
        regular(path)
    try:
        with path.open("rb") as file:
            content = strict.loads(file.read(MAX_BYTES))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{path} cannot be read as a policy: {reason}; calibrate.py writes one") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise UserError(f"{path} is not a policy; calibrate.py writes one")
    version = content.pop("formatVersion", None)
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise UserError(f"{path} has format version {printable(version, 40)}; this program reads 1 to {FORMAT_VERSION}")
    if version == 1:
        content.setdefault("protocol", PROTOCOLS[0])
    names = {field.name for field in fields(Policy)}
    if odd := sorted(names ^ content.keys()):
        raise UserError(f"{path} is damaged: it {'lacks' if odd[0] in names else 'has'} {printable(odd[0], 40)}")
    for name, right in _checks(content):
        if not right:
            raise UserError(f"{path} is damaged: its {name} cannot be {printable(content[name], 80)}")
    return Policy(**{name: tuple(value) if isinstance(value, list) else value for name, value in content.items()})


def check_fits(path: Path, policy: Policy, network: MultiExit) -> None:
    """Raise UserError where the policy in a file was made for another network than this one."""
    if policy.positions != network.exits:
        has, fits = (", ".join(map(str, positions)) for positions in (network.exits, policy.positions))
        raise UserError(f"{path} is a policy for exits {fits}, the network has {has}; calibrate.py makes one for it")
    if policy.model != fingerprint(network):
        raise UserError(f"{path} is a policy for a network of other weights; calibrate.py makes one for this network")


def _checks(policy: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Of each field whether it can be so; a check relies on those before it."""
    positions, guaranteed = policy["positions"], policy["criterion"] == "maxErrorIncrease"
    yield "positions", _numbers(positions, 1, 99999, int) and len(positions) > 1 and sorted(set(positions)) == positions
    exits = len(positions)
    yield "temperatures", _numbers(policy["temperatures"], 1e-6, 1e6) and len(policy["temperatures"]) == exits
    yield "thresholds", _numbers(policy["thresholds"], 0, NEVER) and len(policy["thresholds"]) == exits
    yield "thresholds", policy["thresholds"][-1] == 0
    yield "model", isinstance(policy["model"], str)
    yield "dataset", isinstance(policy["dataset"], str)
    yield "pictures", _numbers([policy["pictures"]], 1, 1e12, int)
    yield "error", _numbers([policy["error"]], 0, 100)
    yield "macs", _numbers([policy["macs"]], 1, 1e18)
    yield "histogram", _numbers(policy["histogram"], 0, 1e12, int) and len(policy["histogram"]) == exits
    yield "histogram", sum(policy["histogram"]) == policy["pictures"]
    yield "criterion", policy["criterion"] in GOALS
    yield "protocol", policy["protocol"] in PROTOCOLS
    yield "limit", _numbers([policy["limit"]], 0, 1e18)
    yield "confidence", _numbers([policy["confidence"]], 0, 1) if guaranteed else policy["confidence"] is None


def _numbers(values: Any, low: float, high: float, *kinds: type) -> bool:
    """Whether this is a list of numbers (of one of `kinds`, if given) from `low` to `high`; NaN is not."""
    return isinstance(values, list) and all(is_number(v, low, high, *kinds) for v in values)
