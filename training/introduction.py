"""What a run says before its first step: what is trained, on what, with which options, and what could be better."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

import opts
from datasets.splits import TrainingData
from models.names import Configuration
from options import rules
from options.listing import written
from options.recipes import outside_recipe
from reports import tables
from system import arithmetic
from system.text import printable
from training import setup
from training.origin import Origin
from training.plan import Plan
from training.state import State


def subject(configuration: Configuration, data: TrainingData, label: str) -> str:
    """Network, exits, and the data under its label: `AuxResNet-26-2 on DIGITS: exits 19, 26; 10 classes, …`."""
    return (
        f"{configuration.name} on {label}: exits {', '.join(map(str, configuration.exits))}; "
        f"{len(data.classes)} classes, {len(data.train):,} training and {len(data.evaluated):,} "
        f"{data.evaluated_name} pictures"
    )


def settings(options: argparse.Namespace, chosen: Sequence[str]) -> str:
    """The options, and those of them that were `chosen` for this machine in place of `auto`."""
    table = opts.table(options)
    choices = {name: getattr(options, name) for name in chosen}
    return f"{table}\nchosen for this machine: {written(choices)}" if choices else table


def beginning(origin: Origin, classes: Sequence[str]) -> str | None:
    """What a new run for these classes begins with; None where it is fresh weights, or a run goes on."""
    if not origin.weights:
        return None
    fresh = "" if origin.is_for(classes) else "; the linear layers are fresh, because the classes are others"
    return f"weights: those of {printable(origin.run)}, trained for {tables.trainings(origin.trainings)}{fresh}"


def where(folder: Path, state: State, plan: Plan, resumed: bool) -> str:
    """The folder, and from where a resumed run goes on."""
    if not resumed:
        return f"folder: {folder}/"
    within = f" and {state.steps_done} of {plan.steps} steps" if state.steps_done else ""
    return f"folder: {folder}/ (resumed after epoch {state.epochs_done}{within})"


def extension(options: argparse.Namespace, before: argparse.Namespace, state: State, plan: Plan) -> str | None:
    """What becomes of the learning rate of a resumed run that is given more epochs; None for as many as before."""
    if options.nEpochs == before.nEpochs:
        return None
    rate = setup.learning_rate(options)
    plans = (replace(plan, epochs=before.nEpochs), plan)
    old, new = (rate(one.progress(state.epochs_done, state.steps_done)) for one in plans)
    return (
        f"nEpochs raised from {before.nEpochs} to {options.nEpochs}: from here on the learning rate is that of the "
        f"longer schedule, {new:.4g} where it was {old:.4g}"
    )


def warnings(options: argparse.Namespace, begins: bool, device: torch.device) -> list[str]:
    """What may not be as the user meant it. A run that goes on keeps its options, and hears of its machine only."""
    told = [arithmetic.slow(options.precision, device)]
    if begins:
        told += [outside_recipe(options), rules.idle(opts.stated(vars(options)), options)]
    return [text for text in told if text]


def hint(options: argparse.Namespace, macs: int, device: torch.device) -> str | None:
    """That a long run with the authors' settings could be quicker on this machine; None if it could not."""
    authors = options.recipe == "paper" and options.precision == "float"
    if not authors or macs < arithmetic.WORTH_COMPILING[device.type] or not arithmetic.computes_bf16(device):
        return None
    advice = "" if options.compile or rules.against_compiling(options) else " --compile auto"
    return f"this machine computes bf16 natively: --precision auto{advice} would be much faster"
