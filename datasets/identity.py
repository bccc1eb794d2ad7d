"""Which data a run is of: what it remembers of them, and how those that it finds when it goes on differ."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from datasets.pictures import Pictures
from datasets.splits import TrainingData
from system.strict import is_number
from system.text import NAMED, printable, some_of

ROUNDING = 1e-9  # by which means that another processor measures may differ


def describe(data: TrainingData) -> dict[str, Any]:
    """The names of the classes, the normalisation, and the pictures that are trained on and held out: how many of each
    class, and a SHA-256 of their pixels and targets. 0.1 s for the pictures of CIFAR."""
    return {
        "classes": list(data.classes),
        "mean": list(data.mean),
        "std": list(data.std),
        "training": _describe_pictures(data.train),
        data.evaluated_name: _describe_pictures(data.evaluated),
    }


def _describe_pictures(pictures: Pictures) -> dict[str, Any]:
    counts = torch.bincount(pictures.targets, minlength=len(pictures.classes)).tolist()
    return {"counts": counts, "sha256": digest(pictures)}


def digest(pictures: Pictures) -> str:
    """The SHA-256 of pictures and their targets."""
    found = hashlib.sha256(f"{tuple(pictures.images.shape)}\n".encode())
    for part in (pictures.images, pictures.targets):
        found.update(memoryview(part.contiguous().numpy().reshape(-1)).cast("B"))
    return found.hexdigest()


def difference(now: Mapping[str, Any], others: Any) -> str | None:
    """In what data, as `describe` tells them, differ from others, which may be from a file; None: in nothing."""
    try:
        found = [] if now == others else list(_differences(now, others))
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):  # tensors, too, may be in a state
        return "what the state says of them cannot be read"
    return "; ".join(found) or None


def _differences(now: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[str]:
    """In words. Raises LookupError where they are not of the same form."""
    if now.keys() != before.keys():
        raise LookupError
    classes, old = now["classes"], before["classes"]
    if classes != old:
        now_there, there_before = set(classes), set(old)
        gone = [name for name in old if name not in now_there]
        new = [name for name in classes if name not in there_before]
        if new and gone:
            yield f"classes {some_of(new)} in place of {some_of(gone)}"
        elif new:
            yield f"classes {some_of(new)}"
        else:
            yield f"no class {some_of(gone)}" if gone else "their order"
        return
    for split in (name for name in now if name not in ("classes", "mean", "std")):
        yield from _differing_pictures(split, classes, now[split], before[split])
    normalisations = (_normalisation(data) for data in (now, before))
    if not all(math.isclose(new, old, rel_tol=ROUNDING) for new, old in zip(*normalisations, strict=True)):
        yield "their normalisation"


def _normalisation(data: Mapping[str, Any]) -> list[float]:
    """Means and deviations. Raises ValueError for what are none."""
    for values in (data["mean"], data["std"]):
        if type(values) is not list or len(values) != 3 or not all(is_number(value, 0, 255) for value in values):
            raise ValueError
    return [*data["mean"], *data["std"]]


def _differing_pictures(
    split: str, classes: Sequence[str], now: Mapping[str, Any], before: Mapping[str, Any]
) -> Iterator[str]:
    if now.keys() != before.keys():
        raise LookupError
    counts = zip(classes, now["counts"], before["counts"], strict=True)
    changed = [f"{count:,} of {printable(name)}, there were {old:,}" for name, count, old in counts if count != old]
    if changed:
        more = f", and so on for {len(changed)} classes" if len(changed) > NAMED else ""
        yield f"{split} pictures: {', '.join(changed[:NAMED])}{more}"
    elif now["sha256"] != before["sha256"]:
        yield f"{split} pictures have changed (another version of Pillow, which decodes them, may change some, too)"
