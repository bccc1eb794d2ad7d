"""What options may not be together, though each of them is legal alone, by program.

Each check raises UsageError, which names the options, what they are, and what to give instead. (`idle` and those called
`against_…` give what to say, or None.)
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import catalog
from datasets.catalog import NAMES, TESTED_ON
from datasets.sizing import SIDE
from models import exits, names
from options.declaration import as_text
from options.values import ALL, EXPORTED, GOALS, THRESHOLD
from system import world
from system.errors import UsageError
from system.files import is_folder
from system.text import printable

OF_DISTILLATION = {"teacher": "last", "temperature": 1.0}  # options for --distill, as they are without it


def training(options: argparse.Namespace) -> None:
    """The rules of `main.py` that hold of any run, whatever version began it."""
    if not options.valSize and not _at_hand(options.data):
        raise UsageError(
            f"--data {options.data} has neither test/ nor val/ to test on, and --valSize is 0; add one of the folders, "
            "or hold out N of the training pictures with --valSize N"
        )
    exits.loss_weights(options.exitWeights, names.of_options(vars(options)).exits)
    _pictures(options)
    _machine(options)


def _pictures(options: argparse.Namespace) -> None:
    """How large pictures are, and what is done to them."""
    if options.inputSize != SIDE and options.data in NAMES:
        raise UsageError(
            f"--inputSize {options.inputSize} is for folders of pictures; those of {options.data} are {SIDE}×{SIDE}; "
            "leave it out"
        )
    if options.startSize > options.inputSize:
        side = options.inputSize
        raise UsageError(f"--startSize {options.startSize} is above --inputSize {side}; give 8 to {side}")
    if options.cutout >= options.inputSize:
        side = options.inputSize
        raise UsageError(f"--cutout {options.cutout} leaves nothing of pictures of {side} pixels; give 0 to {side - 1}")


def _machine(options: argparse.Namespace) -> None:
    """On what a run computes, and how."""
    if options.precision == "half" and options.optimizer == "muon":
        raise UsageError(
            "--precision half excludes --optimizer muon: a step is skipped by both or none; give bf16 or sgd"
        )
    reason = against_compiling(options)
    if options.compile is True and reason:
        raise UsageError(f"--compile true {reason}")
    if options.syncBN and (options.nGPU or 0) > 1:
        raise UsageError(
            f"--syncBN true is for the processes that torchrun starts, --nGPU is {options.nGPU}; give --nGPU 1 or less"
        )


def against_compiling(options: argparse.Namespace) -> str | None:
    """Which option steps cannot be compiled with, and what to do; None where there is none."""
    if options.shareGradInput:
        return "excludes --shareGradInput true: compiled code plans its memory; give one"
    if options.syncBN:
        return "excludes --syncBN true: compiled code does not wait for others; give one"
    return _against_several_gpus(options)


def new_run(options: argparse.Namespace) -> None:
    """What else holds of a run that begins. (Older versions trained without an exit to teach another.)"""
    if options.distill and len(exits.learning(options.exitWeights, names.of_options(vars(options)).exits)) < 2:
        raise UsageError(
            "--distill needs two exits that learn, one to teach the other; give --distill 0, or more --nOutputs or "
            "--exitWeights"
        )
    for name, usual in OF_DISTILLATION.items():
        value = getattr(options, name)
        if not options.distill and value != usual:
            raise UsageError(f"--{name} {value} is for --distill, which is 0; give that a weight, or leave it out")
    if options.retrain:
        retrained(options)


def retrained(options: argparse.Namespace) -> str | None:
    """What the folder of the run is called whose network `--retrain` names; None for a path. Raises UsageError for what
    is neither."""
    try:
        return run_called(options.retrain, catalog.label(options.data))
    except UsageError as error:
        raise UsageError(f"--retrain {printable(options.retrain, 80)}: {error}") from error


def idle(given: Mapping[str, Any], options: argparse.Namespace) -> str | None:
    """What to tell a user who has given options of a new run that change nothing with its data set, its network or its
    processes; None where there are none."""
    data, row = options.data, catalog.row(options.data)
    single = len(names.of_options(vars(options)).exits) == 1
    reasons = {
        "svhnExtra": "" if data == "SVHN" else "it is for SVHN",
        "padding": "" if row.pad else f"pictures of {data} are not cropped at random",
        "alternateFlip": "" if row.flip else f"pictures of {data} are not mirrored",
        "exitSchedule": "there is a single exit" if single else "",
        "syncBN": "" if world.size() > 1 else "there is a single process; torchrun starts several",
    }
    found = {name: why for name, why in reasons.items() if why and name in given}
    told = [f"--{name} {as_text(given[name])} changes nothing: {why}" for name, why in found.items()]
    return "; ".join(told) or None


def run_called(model: str, otherwise: str, files: str = names.EXIT_SUFFIX) -> str | None:
    """What the folder of a run is called, as `names.folder_called` tells it, of a model of any data set: of the one in
    front of its name, which may be written in any case, or of `otherwise`."""
    like = names.LIKE_A_NAME.fullmatch(model)
    return names.folder_called(catalog.spelled(like["data"]) if like and like["data"] else otherwise, model, files)


def order_of_weights(given: Mapping[str, Any]) -> None:
    """A list of weights is not to stand beside exits in another order; `given` are the options that were given."""
    positions, weights = given.get("exits") or (), given.get("exitWeights")
    if isinstance(weights, tuple) and list(positions) != sorted(positions):
        raise UsageError(
            f"--exitWeights {as_text(weights)} are those of the exits from the shallowest on, --exits is "
            f"{as_text(positions)}; give {as_text(tuple(sorted(positions)))}, and the weights in that order"
        )


def testing(options: argparse.Namespace) -> None:
    """The rules of `test.py`."""
    _not_exported(options)
    if options.policy:
        drawn = options.exit == ALL and options.plot  # beside the card
        excluded = ("mirror", "perClass") if drawn else ("exit", "mirror", "perClass", "json", "plot")
        others = [name for name in excluded if getattr(options, name)]
        if others:
            raise UsageError(
                f"--policy excludes --{others[0]}: it says which exit each picture leaves at; give one, or --exit all "
                "with --plot to draw it beside all exits"
            )
        _one_device(options)
    if options.compile and (options.exit or not options.policy):
        raise UsageError("--compile true is for --policy without --exit; add that, or leave --compile out")
    if options.perClass and options.exit == ALL:
        raise UsageError("--perClass is for one exit, --exit is all; give a position or ensemble, or leave --exit out")
    if options.json and options.exit != ALL:
        raise UsageError(f"--json {options.json} is for the card of all exits; add --exit all")
    if options.plot and options.exit != ALL and not options.perClass:
        raise UsageError(f"--plot {options.plot} has nothing to draw; add --exit all, or --perClass")
    if options.mirror:
        mirroring(options.data)


def mirroring(data: str) -> None:
    """Mirror images are for data sets whose pictures are flipped in training."""
    if not catalog.row(data).flip:
        legal = ", ".join(name for name in NAMES if catalog.row(name).flip)
        raise UsageError(f"--mirror is for {legal} and folders; {data} is trained without mirror images; leave it out")


def predicting(options: argparse.Namespace) -> None:
    """The rules of `predict.py`."""
    if Path(options.model).suffix in EXPORTED:
        _exported(options)
    if options.policy:
        _one_chooses(options)
        _one_device(options)


def _exported(options: argparse.Namespace) -> None:
    """What predicts is a file of `export.py`."""
    if options.precision != "float":
        raise UsageError(f"--precision {options.precision}: {options.model} computes as it was exported; leave it out")
    if options.policy:
        raise UsageError(f"--policy {options.policy}: {options.model} has its policy in it, or none; leave it out")
    if options.nGPU and Path(options.model).suffix == ".onnx":
        raise UsageError(f"--nGPU {options.nGPU}: {options.model} runs on the CPU; leave it out, or export a .pt2 file")
    if reason := _against_several_gpus(options):
        raise UsageError(f"{options.model} {reason}")


def _not_exported(options: argparse.Namespace) -> None:
    """What is tested, calibrated or exported is a run or an exit file."""
    if Path(options.model).suffix in EXPORTED:
        raise UsageError(f"{options.model} is for predict.py; give the run or the exit file that it was made of")


def calibrating(options: argparse.Namespace) -> None:
    """The rules of `calibrate.py`."""
    _not_exported(options)
    criterion, _ = goal(options)
    if options.confidence is not None and options.maxErrorIncrease is None:
        raise UsageError(f"--confidence is that of --maxErrorIncrease; leave it out with --{criterion}")
    if options.protocol != THRESHOLD and options.maxErrorIncrease is not None:
        raise UsageError(
            f"--protocol {options.protocol} keeps a budget and assures no error; give --budgetMACs or --budgetMs, or "
            f"leave --protocol out with --maxErrorIncrease"
        )


def goal(options: argparse.Namespace) -> tuple[str, float]:
    """The one option that says what a policy is for, and its value."""
    given = [(name, getattr(options, name)) for name in GOALS if getattr(options, name) is not None]
    if len(given) != 1:
        found = " and ".join(f"--{name}" for name, _ in given) or "none of them"
        raise UsageError(f"a policy is for one of --{', --'.join(GOALS)}; given: {found}")
    return given[0]


def exporting(options: argparse.Namespace) -> None:
    """The rules of `export.py`."""
    _not_exported(options)
    if options.check != 0 and not _at_hand(options.data):
        raise UsageError(
            f"{options.data} is neither one of {', '.join(NAMES)} nor a folder with test/<class>/ or val/<class>/; "
            "give what the network was trained on, or --check 0 where that is not at hand"
        )
    if options.bundle and options.to:
        raise UsageError(f"--bundle {options.bundle} excludes --to {options.to}; give one")
    if options.bundle and not options.policy:
        raise UsageError(f"--bundle {options.bundle} needs --policy FILE to route pictures by; calibrate.py writes one")
    if options.policy:
        _one_chooses(options)
        if options.int8:
            raise UsageError("--policy excludes --int8, which is for single exits; give one, or --half")
        if options.to and not options.to.endswith(".onnx"):
            raise UsageError(f"--policy is for .onnx files and for --bundle, --to is {options.to}; give another file")
    if options.to and options.to.endswith(names.EXIT_SUFFIX) and not options.half:
        raise UsageError(f"--to {options.to} is for --half; without it that file would be the exit's own; add --half")
    if options.int8 and (options.half or not options.to.endswith(".onnx")):
        raise UsageError(
            f"--int8 is for .onnx files without --half; --to is {options.to}, --half is {as_text(options.half)}; "
            "change these, or leave --int8 out"
        )
    if options.int8 and options.check == 0:
        raise UsageError("--int8 needs test pictures to measure its cost on; give --check above 0, or leave it out")
    if options.int8 and options.data not in NAMES and not is_folder(options.data, "train"):
        raise UsageError(
            f"--int8 measures ranges on training pictures, and {options.data} has no train/; give a folder with train/ "
            "and test/, or leave --int8 out"
        )


def _at_hand(data: str) -> bool:
    """Whether there are pictures to test on, or can be downloaded."""
    return data in NAMES or any(is_folder(data, split) for split in TESTED_ON)


def _one_chooses(options: argparse.Namespace) -> None:
    """Either --policy or --exit says where pictures leave."""
    if options.exit:
        raise UsageError(f"--policy excludes --exit {options.exit}: it says where each picture leaves; give one")


def _one_device(options: argparse.Namespace) -> None:
    """Pictures are routed by --policy on one device."""
    if reason := _against_several_gpus(options):
        raise UsageError(f"--policy {reason}")


def _against_several_gpus(options: argparse.Namespace) -> str | None:
    """What to say of an option that is for one device where there are to be several; None where there are not."""
    if (options.nGPU or 0) > 1:
        return f"is for one device, --nGPU is {options.nGPU}; give --nGPU 1 or less"
    return None
