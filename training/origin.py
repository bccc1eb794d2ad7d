"""The weights that a run begins with in place of fresh ones: those of a network that was trained before (`--retrain`).

The network has to be the same but for its classes. Where they are others, the linear layers, which tell them apart,
begin fresh. What the run's files tell of it are the trainings that the weights had behind them, not where they lay.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from datasets import catalog
from datasets.splits import TrainingData
from formats import exit_file
from inference import saved
from inference.saved import SavedModel
from models import names
from models.names import Configuration
from options import rules
from options.declaration import as_text
from options.values import ALL
from system import world
from system.errors import UserError
from system.text import printable

SHAPE = ("depth", "exits", "widen", "shortcutType")  # the options that say which weights a network has


@dataclass(frozen=True)
class Origin:
    """Where a run's weights come from, if not from chance."""

    trainings: list[dict[str, Any]]  # for each training before, the first one first, its `dataset` and its `epochs`
    weights: Mapping[str, Tensor]  # of the network's state: all but those that begin fresh; none in a run that goes on
    other_classes: bool = False  # whether linear layers begin fresh


def find(
    options: argparse.Namespace,
    configuration: Configuration,
    data: TrainingData,
    held_out: str | None,
    saved: Mapping[str, Any] | None,
) -> Origin:
    """What a run begins with, as the first process finds it, or, where it goes on, what its training state says that it
    has begun with; `held_out` is the SHA-256 of its validation pictures.

    Raises UserError for another network, and for one that was trained on pictures that are held out here.
    """
    if saved is not None:
        trainings = saved.get("origin", [])
        if not exit_file.are_trainings(trainings):
            raise UserError(f"the training state says that the run began with {printable(trainings, 40)}, no trainings")
        return Origin(trainings, {})
    if options.retrain is None:
        return Origin([], {})
    return Origin(**world.broadcast(lambda: vars(_find(options, configuration, data, held_out))))


def _find(
    options: argparse.Namespace, configuration: Configuration, data: TrainingData, held_out: str | None
) -> Origin:
    folder = rules.retrained(options)
    model = saved.find(options.retrain, folder, ALL, options.save)
    label, header = catalog.label(options.data), model.header
    _check_network(options.retrain, model, configuration)
    if held_out and header["dataset"] == label and header.get("heldOut") != held_out:
        raise UserError(
            f"--retrain {options.retrain} may have been trained on what --valSize {options.valSize} holds out, whose "
            "error would be too low; leave --valSize out, or give a network that was trained with the same"
        )
    trainings = [*header["origin"], {"dataset": header["dataset"], "epochs": header["epochs"]}]
    weights, other_classes = model.network.state_dict(), tuple(header["classes"]) != data.classes
    if other_classes:
        weights = {name: tensor for name, tensor in weights.items() if ".linear." not in name}
    return Origin(trainings, weights, other_classes)


def _check_network(name: str, model: SavedModel, wanted: Configuration) -> None:
    """Raise UserError where a model is of another network, or lacks an exit; dropout has no weights."""
    if replace(model.configuration, dropout=wanted.dropout) != wanted:
        found, given = map(_in_options, (model.configuration, wanted))
        raise UserError(f"--retrain {name} is of {found}, this run is of {given}; give the options of the former")
    if missing := sorted({*wanted.exits} - model.files.keys()):
        raise UserError(
            f"--retrain {name} has no file of exit {missing[0]}; give the folder of a run that has all of its exits"
        )


def _in_options(configuration: Configuration) -> str:
    """A network as a command line gives it, without its dropout."""
    fields = {option: getattr(configuration, names.NETWORK[option]) for option in SHAPE}
    return " ".join(f"--{option} {as_text(value)}" for option, value in fields.items())
