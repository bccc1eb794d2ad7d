"""Every option of `main.py` and `test.py`, in groups, checked. Imports no torch, so that --help is instant.

Options may be written as in the Lua scripts: with one dash, and in any case (`-batchSize 256`).
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from options.recipes import MEANT_FOR, RECIPES
from options.values import (
    DATASETS,
    boolean,
    boolean_or_auto,
    dataset,
    exit_position,
    number,
    png,
    positions,
    weights,
)
from system.errors import UsageError, UserError

DATA_HELP = f"{', '.join(DATASETS)}, or a folder with train/<class>/* and test/<class>/*"
DEFAULTS = {
    "data": "CIFAR10",
    "dataDir": "./data",
    "svhnExtra": True,
    "trainSize": None,
    "valSize": 0,
    "save": "./",
    "saveEvery": 10.0,
    "resume": None,
    "depth": 26,
    "nOutputs": None,
    "exits": None,
    "widen": None,
    "dropout": 0.0,
    "shortcutType": None,
    "exitWeights": "sum",
    "exitSchedule": "constant",
    "distill": 0.0,
    "teacher": "last",
    "temperature": 1.0,
    "recipe": "paper",
    "nEpochs": 400,
    "testEvery": 1,
    "batchsize": 128,
    "schedule": "step",
    "LR": 0.1,
    "scaleLR": False,
    "optimizer": "sgd",
    "momentum": 0.9,
    "weightDecay": 1e-4,
    "decayNorms": True,
    "labelSmoothing": 0.0,
    "ema": 0.0,
    "alternateFlip": False,
    "cutout": 0,
    "startSize": 32,
    "manualSeed": 0,
    "nGPU": None,
    "nThreads": 2,
    "shareGradInput": False,
    "precision": "float",
    "compile": False,
}
DATASET_DEFAULTS = {"DIGITS": {"widen": 1, "nEpochs": 8, "batchsize": 64, "schedule": "onecycle"}}
FREE_ON_RESUME = (
    "resume",
    "save",
    "saveEvery",
    "testEvery",
    "dataDir",
    "nGPU",
    "nThreads",
)  # may differ without changing what is learnt
FREE_BETWEEN_RUNS = (
    *FREE_ON_RESUME,
    "manualSeed",
    "compile",
    "shareGradInput",
    "recipe",
)  # may differ between runs of one configuration
PRECISIONS = ("auto", "float", "bf16", "half")
AUTO = ("precision", "compile")  # of which `auto` is left to the machine
EXTENDABLE = ("step", "cosine")  # schedules under which a resumed run may be given more epochs


class _Parser(argparse.ArgumentParser):
    """argparse, with its errors raised, endless values cut, instead of printed under a page of usage."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"(\S{80})\S+", r"\1...", message)
        raise UsageError(f"{message} (see --help)")


WHOLE = number(int, 1, 10**7)
FRACTION = number(float, 0, 1)


class _Options:
    """Adds options to a group with their defaults in the help, and leaves out of the result what was not given."""

    def __init__(self, parser: argparse.ArgumentParser, title: str) -> None:
        self.group = parser.add_argument_group(title)

    def add(self, name: str, kind: Callable[[str], Any], help: str, default: str | None = None, **more: Any) -> None:
        shown = DEFAULTS.get(name) if default is None else default
        shown = str(shown).lower() if isinstance(shown, bool) else shown
        self.group.add_argument(
            f"--{name}", type=kind, default=argparse.SUPPRESS, help=f"{help} (default: {shown})", **more
        )


def _add_data_dir(group: _Options) -> None:
    group.add("dataDir", str, "where data sets are, or are downloaded to", metavar="DIR")


def _add_gpus(group: _Options) -> None:
    group.add("nGPU", number(int, 0, 1024), "GPUs to share each batch among; 0: CPU", "1 if there is one", metavar="N")


def _add_precision(group: _Options, default: str | None = None) -> None:
    group.add(
        "precision", str.lower, "arithmetic of the network: 32-bit, bfloat16, half (in training with a gradient "
        "scaler); auto: bf16 where the machine computes it natively", default, choices=PRECISIONS,
    )  # fmt: skip


def _training_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="main.py",
        usage="python main.py [options]",
        description="Train a residual network with several exits at once; save one model per exit.",
        epilog="With no option: AuxResNet-26-2/10 on CIFAR10. Options may be written -likeThis, in any case.",
        allow_abbrev=False,
    )
    _add_data(_Options(parser, "data"))
    _add_files(_Options(parser, "files"))
    _add_network(_Options(parser, "network"))
    _add_training(_Options(parser, "training"))
    _add_exit_losses(_Options(parser, "losses of the exits"))
    _add_pictures(_Options(parser, "how training pictures are varied"))
    _add_machine(_Options(parser, "machine"))
    return parser


def _add_data(data: _Options) -> None:
    data.add("data", dataset, DATA_HELP, metavar="DATA")
    _add_data_dir(data)
    data.add("svhnExtra", boolean, "SVHN: use the extra pictures, too", metavar="true|false")
    data.add("trainSize", WHOLE, "train on the first N pictures of a seeded, class-balanced order", "all", metavar="N")
    data.add("valSize", number(int, 0, 10**7), "hold out N training pictures, keep the best epoch on them", metavar="N")


def _add_files(files: _Options) -> None:
    files.add("save", str, "folder in which the run's folder is made", metavar="DIR")
    files.add("saveEvery", number(float, 0, 1e6), "minutes between saves within an epoch", metavar="MIN")
    files.add(
        "resume", str, "go on with the run in DIR, or in this command's own folder", "start anew",
        metavar="DIR", nargs="?", const="",
    )  # fmt: skip


def _add_network(network: _Options) -> None:
    network.add("depth", number(int, 1, 99999), "layers: 6n+2 (basic blocks) or 9n+2 (bottleneck)", metavar="D")
    network.add("nOutputs", number(int, 1, 99999), "number of exits; 1 is the plain ResNet", "2", metavar="K")
    network.add(
        "exits", positions, "positions of the exits, such as 15,35,56", "published, or evenly spread",
        metavar="P,P,...",
    )  # fmt: skip
    network.add("widen", number(int, 1, 100), "widen factor k", "10 at depth 26, else 1; DIGITS: 1", metavar="K")
    network.add(
        "dropout", number(float, 0, 0.95), "dropout rate in the blocks; 0.3 without a value",
        metavar="P", nargs="?", const=0.3,
    )  # fmt: skip
    network.add(
        "shortcutType", str.upper, "A: zero-padded identity, B: 1x1 convolution", "A if k is 1, else B",
        choices=("A", "B"),
    )  # fmt: skip


def _add_training(training: _Options) -> None:
    training.add(
        "recipe", str.lower, "defaults of the options here and in the two groups below: the authors', or quick ones",
        choices=tuple(RECIPES),
    )  # fmt: skip
    training.add("nEpochs", number(int, 1, 100000), "epochs", "400; fast: 30; DIGITS: 8", metavar="N")
    training.add("testEvery", number(int, 1, 100000), "test after every Nth epoch, and after the last", metavar="N")
    training.add("batchsize", number(int, 1, 65536), "pictures a step", "128; DIGITS: 64", metavar="N")
    training.add(
        "schedule", str.lower, "learning rate: step (/10 at 40 %% and 60 %%), cosine, onecycle",
        "step; DIGITS: onecycle", choices=("step", "cosine", "onecycle"),
    )  # fmt: skip
    training.add("LR", number(float, 1e-9, 100), "(highest) learning rate", metavar="LR")
    training.add("scaleLR", boolean, "multiply LR by batchsize / 128", metavar="true|false")
    training.add("optimizer", str.lower, "sgd, or Muon for the blocks' kernels", choices=("sgd", "muon"))
    training.add("momentum", number(float, 0, 0.9999), "Nesterov momentum; 0: plain SGD", metavar="M")
    training.add("weightDecay", FRACTION, "weight decay", metavar="W")
    training.add("decayNorms", boolean, "weight decay on batch norms and biases, too", metavar="true|false")
    training.add("ema", number(float, 0, 0.999999), "keep the weights' moving average of this decay", metavar="D")
    training.add("manualSeed", number(int, 0, 2**32 - 1), "seed of all randomness", metavar="N")


def _add_exit_losses(losses: _Options) -> None:
    losses.add("exitWeights", weights, "sum (all 1), depth, or a list such as 0.5,1", metavar="W")
    losses.add(
        "exitSchedule", str.lower, "deepen: the first exit's weight falls from 1.5 to 0.5 times, the last's rises",
        choices=("constant", "deepen"),
    )  # fmt: skip
    losses.add("labelSmoothing", number(float, 0, 0.9), "part of a target spread over all classes", metavar="S")
    losses.add("distill", number(float, 0, 1000), "weight of what exits learn from the teacher", metavar="W")
    losses.add("teacher", str.lower, "the last exit, or the ensemble of all exits", choices=("last", "ensemble"))
    losses.add("temperature", number(float, 0.1, 100), "of the distillation's softmax", metavar="T")


def _add_pictures(pictures: _Options) -> None:
    pictures.add("alternateFlip", boolean, "mirror in every second epoch, not by chance", metavar="true|false")
    pictures.add("cutout", number(int, 0, 31), "paint over a square of so many pixels; 0: none", metavar="PX")
    pictures.add(
        "startSize", number(int, 8, 32), "side in pixels to begin with, growing by 8 up to 32 in the first half",
        metavar="PX",
    )  # fmt: skip


def _add_machine(machine: _Options) -> None:
    _add_gpus(machine)
    machine.add("nThreads", number(int, 0, 256), "loader workers; 0: none", metavar="N")
    machine.add(
        "shareGradInput", boolean, "save memory: recompute activations in the backward pass", metavar="true|false"
    )
    _add_precision(machine, "float; fast: auto")
    machine.add(
        "compile", boolean_or_auto, "faster steps after a wait of a minute: torch.compile, one device; auto: where a "
        "compiler works and the run is long enough to earn it", "false; fast: auto", metavar="true|false|auto",
    )  # fmt: skip


def _spelled(argv: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """The arguments with every option in its own spelling: `-batchSize=256` -> `--batchsize=256`."""
    known = {flag[2:].lower(): flag for flag in parser._option_string_actions if flag.startswith("--")}
    result = []
    for argument in argv:
        match = re.fullmatch(r"--?([A-Za-z]+)(=.*)?", argument, re.DOTALL)
        flag = known.get(match[1].lower()) if match else None
        result.append(flag + (match[2] or "") if flag else argument)
    return result


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The checked options of `main.py`, every default resolved.

    Raises UsageError naming the option, what was given and what is legal. With `--resume DIR` the options saved in
    DIR stand in for the defaults.
    """
    given = _given(argv)
    if given.get("resume"):
        given = {**vars(from_saved(load(Path(given["resume"])))), **given}
    return argparse.Namespace(**_resolve(given))


def _given(argv: Sequence[str]) -> dict[str, Any]:
    parser = _training_parser()
    return vars(parser.parse_args(_spelled(argv, parser)))


def from_saved(values: Any) -> argparse.Namespace:
    """The options of a run from what it saved, checked like a command line; UserError where they are none."""
    if not isinstance(values, dict):
        raise UserError(f"the saved options are not those of a run, but {str(values)[:40]}")
    try:
        named = [(name, value) for name, value in values.items() if value is not None and name != "resume"]
        return argparse.Namespace(**_resolve(_given([f"--{name}={_plain(value)}" for name, value in named])))
    except UsageError as error:
        raise UserError(f"the saved options are not those of a run: {error}") from error


def _resolve(given: dict[str, Any]) -> dict[str, Any]:
    """Fill in what was not given; the one place where defaults depend on the data set or on other options."""
    data = given.get("data", DEFAULTS["data"])
    recipe = RECIPES[given.get("recipe", DEFAULTS["recipe"])]
    options = {**DEFAULTS, **recipe, **DATASET_DEFAULTS.get(data, {}), **given}
    if options["widen"] is None:
        options["widen"] = 10 if options["depth"] == 26 else 1
    if options["nOutputs"] is None:
        options["nOutputs"] = len(options["exits"]) if options["exits"] else 2
    _check_together(options)
    return options


def _check_together(options: dict[str, Any]) -> None:
    """Raise UsageError for options that are legal alone but not together."""
    if options["precision"] == "half" and options["optimizer"] == "muon":
        raise UsageError(
            "--precision half excludes --optimizer muon: a step is skipped by both or none; give bf16 or sgd"
        )
    if options["distill"] and options["nOutputs"] == 1:
        raise UsageError("--distill needs two exits, one to teach the other; give --distill 0 or --nOutputs 2 or more")
    if options["compile"] is True and options["shareGradInput"]:
        raise UsageError("--compile true excludes --shareGradInput true: compiled code plans its memory; give one")
    if options["compile"] is True and (options["nGPU"] or 0) > 1:
        raise UsageError(f"--compile true is for one device, --nGPU is {options['nGPU']}; give --nGPU 1 or less")


def label(data: str) -> str:
    """What a data set is called in folders and tables: its name, or the name of its folder."""
    return data if data in DATASETS else Path(data).resolve().name


def describe(options: argparse.Namespace) -> str:
    """The options in one line, for the head of a log."""
    return written({name: value for name, value in vars(options).items() if value is not None and name != "resume"})


def recipe_parts(options: argparse.Namespace) -> str:
    """What the recipe sets, as it came out: `name=value name=value …`; empty for the authors' settings."""
    return written({name: getattr(options, name) for name in RECIPES[options.recipe]})


def written(values: Mapping[str, Any]) -> str:
    """Options as `name=value name=value …`."""
    return " ".join(f"{name}={_plain(value)}" for name, value in values.items())


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_plain, value)) if isinstance(value, tuple | list) else str(value)


def load(folder: Path) -> Any:
    """What the opt.json of a run holds; UserError if there is none."""
    try:
        return json.loads((folder / "opt.json").read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder} does not hold a run: {error}") from error


def recorded(folder: Path) -> dict[str, Any]:
    """The options of a run, as it recorded them, by name; what its version did not know has the default. UserError if
    there are none. They are not checked: their data set need not be here."""
    values = load(folder)
    if not isinstance(values, dict) or not values.keys() <= DEFAULTS.keys() or "depth" not in values:
        raise UserError(f"{folder / 'opt.json'} does not hold the options of a run")
    return {**DEFAULTS, **values}


def outside_recipe(options: argparse.Namespace) -> str | None:
    """What to tell a user whose run has more or fewer epochs than its recipe is meant for; None if it has not."""
    low, high = MEANT_FOR.get(options.recipe, (0, options.nEpochs))
    if low <= options.nEpochs <= high:
        return None
    return (
        f"--recipe {options.recipe} is meant for {low} to {high} epochs, this run has {options.nEpochs}; "
        "TRAINING.md says what becomes of it"
    )


def keep_chosen(options: argparse.Namespace, before: argparse.Namespace) -> argparse.Namespace:
    """The options with what the machine chose before in place of `auto`."""
    chosen = {name: getattr(before, name) for name in AUTO if getattr(options, name) == "auto"}
    return argparse.Namespace(**{**vars(options), **chosen})


def check_resumable(options: argparse.Namespace, before: argparse.Namespace) -> None:
    """Raise UserError naming every option that contradicts those before; more epochs are no contradiction."""
    differences = [
        f"{name} is {_plain(value)}, was {_plain(getattr(before, name))}"
        for name, value in vars(options).items()
        if name not in FREE_ON_RESUME and value != getattr(before, name) and not _extends(name, options, before)
    ]
    if differences:
        raise UserError(f"these options contradict the run to be resumed: {'; '.join(differences)}")


def _extends(name: str, options: argparse.Namespace, before: argparse.Namespace) -> bool:
    steady = options.startSize == DEFAULTS["startSize"] and options.exitSchedule == DEFAULTS["exitSchedule"]
    return name == "nEpochs" and options.schedule in EXTENDABLE and steady and options.nEpochs >= before.nEpochs


def parse_test(argv: Sequence[str]) -> argparse.Namespace:
    """The checked options of `test.py`; raises UsageError as `parse` does."""
    parser = _Parser(
        prog="test.py",
        usage="python test.py [options] data model",
        description="Print the test error of a trained model, in percent.",
        epilog="Example: python test.py CIFAR10 AuxResNet-26-2/10",
        allow_abbrev=False,
    )
    parser.add_argument("data", type=dataset, help=DATA_HELP)
    parser.add_argument("model", help="the network's name, or the path of an exit-*.safetensors file")
    which = _Options(parser, "what to test, where")
    which.add("exit", exit_position, "a position, or all for a table", "the last exit", metavar="P")
    which.add("save", str, "folder searched for the run before pretrained/", metavar="DIR")
    _add_data_dir(which)
    _add_gpus(which)
    _add_precision(which)
    given = vars(parser.parse_args(_spelled(argv, parser)))
    shared = {name: DEFAULTS[name] for name in ("dataDir", "save", "nGPU", "precision")}
    return argparse.Namespace(**{"exit": None, **shared, **given})


def parse_plot(argv: Sequence[str]) -> argparse.Namespace:
    """The checked options of `plot.py`; raises UsageError as `parse` does."""
    parser = _Parser(
        prog="plot.py",
        usage="python plot.py [options] RUN [RUN ...]",
        description="Draw runs into one picture; print mean and standard deviation over those of one configuration.",
        epilog="Example: python plot.py runs/*/CIFAR10-AuxResNet-26-2",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run")
    _Options(parser, "what to write").add("out", png, "file of the picture, a PNG", "runs.png", metavar="FILE")
    return argparse.Namespace(**{"out": "runs.png", **vars(parser.parse_args(_spelled(argv, parser)))})
