"""Saved models asked about pictures: which test pictures they can be asked about, and what their exits answer."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from datasets import catalog, splits
from datasets.pictures import Pictures
from inference import evaluation
from inference.combining import Ensemble, Mirrored
from inference.saved import SavedModel
from models import metrics
from system.errors import UserError, memory_for
from system.machine import Machine
from system.text import some_of


def test_pictures(model: SavedModel, data: str, root: Path, count: int | None = None) -> Pictures:
    """The test pictures of a data set, or `count` of them; UserError where its classes are not those of the model."""
    found = splits.for_testing(catalog.find(data, root, sizing=model.sizing), count)
    check_same_classes(model, found, data)
    return found


def check_same_classes(model: SavedModel, pictures: Pictures, where: str) -> None:
    """Raise UserError where pictures have other classes than the model."""
    trained_on, classes = model.header["dataset"], tuple(model.header["classes"])
    if pictures.classes != classes:
        raise UserError(
            f"{where} has {_some(pictures.classes, classes)}, the model was trained on {trained_on} with "
            f"{_some(classes, pictures.classes)}; give {trained_on}, or pictures of the same classes"
        )


def under_a_bar(pictures: Pictures) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of pictures and targets that are tested, under a bar on a terminal."""
    with tqdm(total=len(pictures), desc="testing", unit="img", leave=False, disable=None) as bar:
        for images, targets in evaluation.batches(pictures):
            yield images, targets
            bar.update(len(targets))  # when the next batch is asked for


def collect(
    model: SavedModel, pictures: Pictures, machine: Machine, mirror: bool = False, ensemble: bool = False
) -> tuple[list[Tensor], Tensor]:
    """The logits of each exit, or of the ensemble alone, N×classes, and the N targets of all pictures, on the machine's
    first device; under a bar on a terminal. `mirror` and `ensemble` are as for `ready`.

    Raises UserError where an exit answers with numbers that are not finite.
    """
    network = ready(model, machine.devices, mirror, ensemble)
    with memory_for("while asking the network", "a shallower exit needs less, and --nGPU 0 none of a GPU's"):
        answers = evaluation.logits_of(network, under_a_bar(pictures), machine.device, machine.dtype)
        by_batch, targets = zip(*answers, strict=True)
        logits, targets = [torch.cat(batches) for batches in zip(*by_batch, strict=True)], torch.cat(targets)
    told = ["the ensemble"] if ensemble else [f"exit {position}" for position in model.files]
    for name, of_exit in zip(told, logits, strict=True):
        metrics.check_finite(of_exit, name)
    return logits, targets


def _some(classes: Sequence[str], others: Sequence[str]) -> str:
    """How many classes there are, and some of them, first those that the others lack."""
    known = set(others)
    ordered = sorted(classes, key=known.__contains__)
    return f"{len(classes)} classes ({some_of(ordered)})"


def ready(
    model: SavedModel, devices: Sequence[torch.device], mirror: bool = False, ensemble: bool = False
) -> nn.Module:
    """What turns N×side×side×3 uint8 pictures into the logits of each exit, as fast as can be, on its devices: with
    `mirror` from each picture and its mirror image, with `ensemble` from all exits, as if they were one."""
    whole = evaluation.ready(model.network, model.normalise, devices)
    whole = Mirrored(whole) if mirror else whole
    return Ensemble(whole) if ensemble else whole
