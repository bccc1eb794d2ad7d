"""The classes of a user's own pictures: files found, decoded ahead of the network, and answered batch by batch."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.catalog import ENDINGS
from datasets.decoding import decode_one, decoded
from datasets.folder import picture_files
from datasets.sizing import Sizing
from inference import asking, evaluation, routing
from inference.classifier import POLICY, Model, card_of, likeliest
from inference.policies import Policy
from inference.saved import SavedModel
from reports.answers import Answer
from system.errors import UserError
from system.files import is_folder
from system.machine import Machine

AHEAD = 2  # batches that are being decoded while the network computes


def listed(arguments: Iterable[str]) -> list[str]:
    """The paths of picture files: those given, and those at any depth in the folders given, in alphabetical order. In
    folders, links to other folders are not followed, and only files whose names end like a picture's are taken.

    Raises UserError for a folder without pictures, and where there are none at all.
    """
    paths = [path for argument in arguments for path in (_within(argument) if is_folder(argument) else [argument])]
    if not paths:
        raise UserError("no pictures are given; name files or folders, or pipe a list of paths into -")
    return paths


def _within(folder: str) -> list[str]:
    pictures = [str(Path(path)) for path in picture_files(Path(folder))]
    if not pictures:
        raise UserError(f"no pictures in {folder}; their names end in {', '.join(ENDINGS)}")
    return pictures


def of_saved(model: SavedModel, machine: Machine) -> Model:
    """The last exit of a saved model on the machine's devices."""
    network = asking.ready(model, machine.devices)

    @torch.inference_mode()
    def ask(images: Tensor) -> tuple[Tensor, Tensor]:
        with machine.autocast():
            probabilities = network(images.to(machine.device))[-1].float().softmax(1).cpu()
        return probabilities, torch.full((len(images),), model.header["position"])

    return Model(ask, card_of(model.header))


def of_policy(model: SavedModel, policy: Policy, machine: Machine) -> Model:
    """A whole network, which pictures leave early by a policy, on the machine's first device."""
    return Model(routing.answers(model, policy, machine), {**card_of(model.header), POLICY: asdict(policy)})


def answers(model: Model, paths: Sequence[str], top: int) -> Iterator[Answer | UserError]:
    """For each path in order the `top` likeliest classes, or the reason why it cannot be read."""
    for group, read in decoded_ahead(paths, model.sizing):
        pictures = [picture for picture in read if not isinstance(picture, UserError)]
        found = _answers(model, torch.from_numpy(np.stack(pictures)), top) if pictures else iter(())
        for path, picture in zip(group, read, strict=True):
            yield picture if isinstance(picture, UserError) else Answer(path, *next(found))


def _answers(model: Model, images: Tensor, top: int) -> Iterator[tuple[list[tuple[str, float]], int]]:
    probabilities, positions = model.answers(images)
    return zip(likeliest(probabilities, model.classes, top), positions.tolist(), strict=True)


def decoded_ahead(paths: Sequence[str], sizing: Sizing) -> Iterator[tuple[Sequence[str], list[np.ndarray | UserError]]]:
    """The paths in batches, each with its pictures, side×side×3 uint8, or with the reasons why they cannot be read.
    While one batch is used, the next ones are decoded."""
    size = evaluation.batch_size(sizing.side)
    with closing(decoded(paths, partial(_decode, sizing=sizing), AHEAD * size)) as pictures:
        for start in range(0, len(paths), size):
            group = paths[start : start + size]
            yield group, list(islice(pictures, len(group)))


def _decode(path: str, sizing: Sizing) -> np.ndarray | UserError:
    try:
        return decode_one(path, sizing)
    except UserError as error:
        return error
