"""From the options of a command line to the parts of a training."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import opts
from datasets import catalog, identity, splits
from datasets.sizing import FITS, USUAL, Sizing
from datasets.splits import TrainingData
from datasets.transforms import Augmentation, Normalise
from formats import exit_file
from models import exits, names, networks
from models.losses import Objective
from options import rules
from system import arithmetic, world
from system.devices import seed
from system.errors import UserError, memory_for
from system.output import tell
from system.stopping import Stop
from system.text import printable
from training.optimizers import Optimization
from training.plan import Plan
from training.schedules import ExitWeights, LearningRate
from training.trainer import Trainer

REFERENCE_BATCH = 128  # at this batch size --scaleLR leaves --LR as it is


def training_macs(configuration: names.Configuration, data: TrainingData, side: int, epochs: int) -> int:
    """The multiply-adds of a training, forward and backward; a backward pass takes twice those of a forward pass."""
    forward = networks.cost(configuration, len(data.classes), configuration.exits[-1], side).macs
    return 3 * forward * len(data.train) * epochs


def choose(
    options: argparse.Namespace, macs: int, devices: Sequence[torch.device], resumed: bool = False
) -> argparse.Namespace:
    """The options with what suits this machine, and a training of so many multiply-adds, in place of `auto`. Where
    steps are to be compiled and cannot be, a resumed run does without, and says so; a new one raises UserError."""
    precision, compiled = arithmetic.choose_precision(options.precision, devices[0]), options.compile
    if compiled == "auto":
        compiled = not rules.against_compiling(options) and arithmetic.choose_compile(macs, devices[0])
    elif compiled and not resumed:
        arithmetic.check_compiles(devices[0])
    elif compiled and not arithmetic.compiles(devices[0]):
        tell("PyTorch finds no compiler here that works: from here on steps are not compiled, and round differently")
        compiled = False
    return argparse.Namespace(**{**vars(options), "precision": precision, "compile": compiled})


def sizing(options: argparse.Namespace, saved: Mapping[str, Any] | None) -> Sizing:
    """How pictures are brought to size. In a resumed run it is what its training state says; where that says nothing,
    an older version began it, which squeezed them."""
    fit = USUAL.fit if saved is None else saved.get("fit", "squeeze")
    if fit not in FITS:
        raise UserError(f"the training state has the fit {printable(fit, 40)}; there are: {', '.join(FITS)}")
    return Sizing(options.inputSize, fit)


def options_before(options: argparse.Namespace, saved: Mapping[str, Any]) -> argparse.Namespace:
    """The options in a training state. Where it knows its pictures, their folder may have another path by now."""
    moved = "data" in saved and options.data not in catalog.NAMES
    return opts.from_saved(saved.get("options"), options.data if moved else None)


def extended(
    options: argparse.Namespace, before: argparse.Namespace, saved: Mapping[str, Any], begun: bool
) -> list[int]:
    """The numbers of epochs that a resumed run was to have, each until it was given more, once it had `begun`.
    UserError where its state has some that they cannot have been."""
    former = saved.get("extended", [])
    if not exit_file.are_epochs(former) or sorted({*former, before.nEpochs}) != [*former, before.nEpochs]:
        text = f"its run was to have {printable(former, 40)} epochs before it had {before.nEpochs}, which cannot be"
        raise UserError(f"the training state says that {text}")
    return [*former, before.nEpochs] if begun and before.nEpochs < options.nEpochs else former


def data(options: argparse.Namespace, sizing: Sizing) -> TrainingData:
    """The pictures to train on and to test on; those of a host are in its memory once."""
    less = "--trainSize takes fewer of them, and --inputSize smaller ones of a folder"
    with memory_for(f"while reading the pictures of {options.data}", less):
        found = splits.shared(world.first_of_host(lambda: _read(options, sizing)))
    exit_file.check_classes(found.classes)
    return found


def _read(options: argparse.Namespace, sizing: Sizing) -> TrainingData:
    found = catalog.find(options.data, Path(options.dataDir), options.svhnExtra, sizing, options.padding)
    return splits.for_training(found, options.trainSize, options.valSize)


def identified(data: TrainingData, saved: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fingerprint of the pictures, by `identity.describe`. Raises UserError where another process, or the run
    before it was interrupted, has others."""
    described = identity.describe(data)
    if odd := identity.difference(described, world.broadcast(lambda: described)):
        raise UserError(f"the data of this host are not those of the first one: {odd}; give all hosts the same")
    if saved and "data" in saved and (odd := identity.difference(described, saved["data"])):
        raise UserError(f"the data are not those that the run began with: {odd}; bring them back, or start a new run")
    return described


def augmentation(options: argparse.Namespace, data: TrainingData) -> Augmentation:
    """How training pictures are varied."""
    return Augmentation(
        pad=data.pad,
        padding=options.padding,
        with_margin=data.train.margin > 0,
        flip=data.flip,
        alternate=options.alternateFlip,
        cutout=options.cutout,
        fill=data.mean,
    )


def plan(options: argparse.Namespace, pictures: int) -> Plan:
    """What each step of the training sees."""
    return Plan(pictures, options.batchsize, options.nEpochs, options.manualSeed, options.inputSize, options.startSize)


def learning_rate(options: argparse.Namespace) -> LearningRate:
    """The course of the learning rate; with `--scaleLR` in proportion to the batch size (Goyal et al., arXiv
    1706.02677, section 2.1)."""
    scale = options.batchsize / REFERENCE_BATCH if options.scaleLR else 1.0
    return LearningRate(scale * options.LR, options.schedule)


def trainer(
    options: argparse.Namespace,
    configuration: names.Configuration,
    classes: int,
    normalise: Normalise,
    devices: Sequence[torch.device],
    batch: int,
    stop: Stop | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> Trainer:
    """A network, seeded, and what trains it; `batch` is how many pictures most steps have, `weights` what of the
    network's state is not to be fresh."""
    seed(options.manualSeed, devices)
    network = networks.build(configuration, classes)
    if weights:
        network.load_state_dict({**network.state_dict(), **weights})
    network.share_grad_input = options.shareGradInput
    loss_weights = exits.loss_weights(options.exitWeights, configuration.exits)
    return Trainer(
        network,
        normalise,
        devices,
        exit_weights=ExitWeights(loss_weights, options.exitSchedule),
        objective=Objective(options.labelSmoothing, options.distill, options.temperature, options.teacher),
        optimization=Optimization(options.optimizer, options.momentum, options.weightDecay, options.decayNorms),
        learning_rate=learning_rate(options),
        dtype=arithmetic.DTYPES[options.precision],
        average=options.ema,
        mixup=options.mixup,
        compiled_batch=len(world.own(range(batch))) if options.compile else 0,
        sync_norms=options.syncBN,
        seed=options.manualSeed,
        stop=stop,
    )
