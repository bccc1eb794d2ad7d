"""Policies: rules by which pictures leave early, with what they were fitted on, as JSON in `policy.json`."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from inference.early_exit import NEVER, Rule
from inference.saved import SavedModel
from models.exits import MAX_DEPTH
from models.multiexit import MultiExit
from options.values import GOALS, PROTOCOLS, THRESHOLD
from system import files, strict
from system.errors import UserError
from system.strict import is_number
from system.text import printable

FORMAT, FORMAT_VERSION = "auxresnet-policy", 3  # version 1 had no protocol, version 2 another word for one
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Policy(Rule):
    """A rule, and what it was fitted on."""

    model: str  # `fingerprint` of the network
    dataset: str  # where the held-out pictures are from
    pictures: int  # how many they are; the next three lines are measured on them
    error: float  # percent
    macs: float  # multiply-adds for one picture, on average
    histogram: tuple[int, ...]  # pictures that leave at each exit
    criterion: str  # one of `values.GOALS`
    limit: float  # what was given for it: multiply-adds, milliseconds, or percentage points of error
    confidence: float | None  # of maxErrorIncrease, 0 … 1
    protocol: str = THRESHOLD  # one of `values.PROTOCOLS`


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
    return strict.dumps(content)


def read(path: Path) -> Policy:
    """The policy in a file; UserError, naming the file, for anything that `as_json` does not give."""
    if path.exists() and files.regular(path).st_size > MAX_BYTES:
        raise UserError(f"{path} has more than {MAX_BYTES:,} bytes, and no policy has as many; calibrate.py writes one")
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
    content = _upgraded(content, version)
    names = {field.name for field in fields(Policy)}
    if odd := sorted(names ^ content.keys()):
        raise UserError(f"{path} is damaged: it {'lacks' if odd[0] in names else 'has'} {printable(odd[0], 40)}")
    for name, right in _checks(content):
        if not right:
            raise UserError(f"{path} is damaged: its {name} cannot be {printable(content[name], 80)}")
    return Policy(**{name: tuple(value) if isinstance(value, list) else value for name, value in content.items()})


def _upgraded(content: dict[str, Any], version: int) -> dict[str, Any]:
    """What the file of an older version has, in the words of this one."""
    if version == 1:
        return {"protocol": THRESHOLD, **content}
    if version == 2 and content.get("protocol") == "confidence":
        return {**content, "protocol": THRESHOLD}
    return content


def find(file: Path, model: SavedModel) -> Policy:
    """The policy in a file, or in the file of that name in the run's folder. Raises UserError where it is none, or one
    for another network."""
    in_run = model.folder / file
    path = in_run if in_run.exists() and not file.exists() else file
    policy = read(path)
    check_fits(path, policy, model.network)
    return policy


def check_fits(path: Path, policy: Policy, network: MultiExit) -> None:
    """Raise UserError where the policy in a file was made for another network than this one."""
    if policy.positions != network.exits:
        has, fits = (", ".join(map(str, positions)) for positions in (network.exits, policy.positions))
        more = "calibrate.py makes one for it" if len(network.exits) > 1 else "give a run with all of them"
        raise UserError(f"{path} is a policy for exits {fits}, the network has {has}; {more}")
    if policy.model != fingerprint(network):
        raise UserError(f"{path} is a policy for a network of other weights; calibrate.py makes one for this network")


def _checks(policy: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Of each field whether it can be so; a check relies on those before it."""
    positions, guaranteed = policy["positions"], policy["criterion"] == "maxErrorIncrease"
    yield "positions", _numbers(positions, 1, MAX_DEPTH, int) and len(positions) > 1
    yield "positions", sorted(set(positions)) == positions
    exits = len(positions)
    yield "temperatures", _numbers(policy["temperatures"], 1e-6, 1e6) and len(policy["temperatures"]) == exits
    yield "thresholds", _numbers(policy["thresholds"], 0, NEVER) and len(policy["thresholds"]) == exits
    yield "thresholds", policy["thresholds"][-1] == 0
    yield "model", isinstance(policy["model"], str)
    yield "dataset", isinstance(policy["dataset"], str)
    yield "pictures", is_number(policy["pictures"], 1, 1e12, int)
    yield "error", is_number(policy["error"], 0, 100)
    yield "macs", is_number(policy["macs"], 1, 1e18)
    yield "histogram", _numbers(policy["histogram"], 0, 1e12, int) and len(policy["histogram"]) == exits
    yield "histogram", sum(policy["histogram"]) == policy["pictures"]
    yield "criterion", policy["criterion"] in GOALS
    yield "protocol", policy["protocol"] in PROTOCOLS
    yield "limit", is_number(policy["limit"], 0, 1e18)
    yield "confidence", is_number(policy["confidence"], 0, 1) if guaranteed else policy["confidence"] is None


def _numbers(values: Any, low: float, high: float, *kinds: type) -> bool:
    """Whether this is a list of numbers (of one of `kinds`, if given) from `low` to `high`; NaN is not."""
    return isinstance(values, list) and all(is_number(v, low, high, *kinds) for v in values)
