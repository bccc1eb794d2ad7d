"""What a run begins with in place of fresh weights: those of a network that was trained before (`--retrain`).

The network has to be the same but for its classes. Where they are others, the linear layers, which have a row for each
class, begin fresh. A run's files tell the trainings that the weights had behind them, not where they lay.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from datasets import catalog
from formats import exit_file
from inference import saved
from models import names
from models.multiexit import for_other_classes
from models.names import Configuration
from options import rules
from options.declaration import as_text
from options.values import ALL
from system import world
from system.errors import UserError
from system.files import real
from system.text import printable


@dataclass(frozen=True)
class Origin:
    """The trainings behind the weights that a run begins with, the first one first, as `exit_file.TRAINING` has them;
    the weights, by their names in the network's state, and the classes that they are for. A run with fresh weights has
    none of these, one that goes on has the trainings alone: its weights are in its own state."""

    trainings: list[dict[str, Any]]
    weights: Mapping[str, Tensor]
    classes: Sequence[str]

    @property
    def run(self) -> str | None:
        """What the folder is called of the run that the weights are of."""
        return self.trainings[-1]["run"] if self.trainings else None

    def weights_for(self, classes: Sequence[str]) -> Mapping[str, Tensor]:
        """Those of the weights that a network for these classes may begin with."""
        return self.weights if self.is_for(classes) else for_other_classes(self.weights)

    def is_for(self, classes: Sequence[str]) -> bool:
        """Whether the weights are for these classes, in this order."""
        return list(self.classes) == list(classes)


def find(options: argparse.Namespace, configuration: Configuration, state: Mapping[str, Any] | None) -> Origin:
    """What a run begins with, as the first process finds it, or, where it goes on, what its training state says that it
    began with. Raises UserError where it is of another network."""
    if state is not None:
        trainings = state.get("origin", [])
        if not exit_file.are_trainings(trainings):
            text = printable(trainings, 40)
            raise UserError(f"the training state has the origin {text}, which is no list of trainings")
        return Origin(trainings, {}, ())
    if options.retrain is None:
        return Origin([], {}, ())
    return Origin(**world.broadcast(lambda: _find(options, configuration)))


def _find(options: argparse.Namespace, configuration: Configuration) -> dict[str, Any]:
    """The fields of an `Origin`, for other processes, too."""
    named = f"--retrain {options.retrain}"
    try:
        model = saved.find(options.retrain, rules.retrained(options), ALL, options.save)
    except UserError as error:
        text = "give the path of a run's folder with all of its exits, or of the only exit file"
        raise UserError(f"{named}: {error}; {text}") from error
    if replace(model.configuration, dropout=configuration.dropout) != configuration:  # dropout has no weights
        found, given = map(_in_options, (model.configuration, configuration))
        raise UserError(f"{named} is of {found}, this run is of {given}; give the options of the former")
    if missing := sorted({*configuration.exits} - model.files.keys()):
        raise UserError(f"{named} lacks {names.exit_name(missing[0])}; give the folder of a run with all of its exits")
    header = model.header
    last = {field: header.get(field) for field in exit_file.TRAINING} | {"run": real(model.folder).name}
    trainings = [*header["origin"], last]
    if not exit_file.are_trainings(trainings):
        most = exit_file.MAX_TRAININGS
        raise UserError(f"{named} has trainings behind it that no run can have, or more than {most}; give another")
    return {"trainings": trainings, "weights": model.network.state_dict(), "classes": header["classes"]}


def _in_options(configuration: Configuration) -> str:
    """A network as a command line gives it, without its dropout."""
    given = names.to_options(configuration)
    return " ".join(f"--{name} {as_text(value)}" for name, value in given.items() if name != "dropout")


def check_held_out(origin: Origin, options: argparse.Namespace, held_out: str | None) -> None:
    """Raise UserError where the weights that a run begins with may have learnt its validation pictures, in a training
    on the data set of this name that did not hold out the same. `held_out` is their SHA-256, None where there are none.
    """
    label = catalog.label(options.data)
    others = [one for one in origin.trainings if one["dataset"] == label and one["heldOut"] != held_out]
    if origin.weights and held_out and others:
        raise UserError(
            f"--retrain {options.retrain} may have learnt pictures that --valSize {options.valSize} holds out here: "
            f"its training on {label} did not hold out the same ones, at the same --inputSize; leave --valSize out, or "
            "give a network that was trained with it"
        )
