"""Every option of every program, one declaration each, and what is saved of those of a run. Imports no torch.

A new option is one row of `OPTIONS`. Its parser and its help follow from it, and so does what is saved of it, whether a
resumed run may change it, and whether runs that differ in it are of one configuration. What may not be together is in
`options/rules.py`. A program's command line is read by `parsed` of its `Program`; that of `main.py`, whose defaults
hang on recipes, files and the run that it goes on with, by `parse`.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

if sys.version_info < (3, 11):  # noqa: UP036 (an older one cannot read what follows)
    sys.exit(f"AuxResNet needs Python 3.11 or newer; this is {sys.version.split()[0]}")

from datasets.catalog import NAMES, TESTED_ON, label, spelled
from datasets.sizing import LEGAL_SIDES, PADDINGS, SIDE, SIDES
from models import names
from models.names import DROPOUT, MAX_WIDEN
from options import rules, stored, values
from options.declaration import Default, Option, Program, as_text, group
from options.listing import in_words, listing
from options.recipes import BY_DATASET, MEANT_FOR, RECIPES
from options.values import PROTOCOLS, THRESHOLD, boolean, boolean_or_auto, layer, number, text
from reports.answers import FORMATS
from system.errors import UsageError, UserError
from system.files import is_folder, real
from system.output import tell
from system.text import printable, quoted

TRAIN_AND_TEST = ("main.py", "test.py")
SHIPPING = ("predict.py", "export.py")
MEANT = " or ".join(f"{low} to {high} ({recipe})" for recipe, (low, high) in MEANT_FOR.items())
AUTO_RESUME = "auto"  # in place of a folder: start a run, or go on with it
EXTENDABLE = ("step", "cosine")  # schedules under which a resumed run may be given more epochs


def _switch(name: str, default: bool, help: str, **more: Any) -> Option:
    return Option(name, boolean, default, help, metavar="true|false", **more)


def _choice(name: str, choices: Iterable[str], default: str | Default, help: str, **more: Any) -> Option:
    return Option(name, str.lower, default, help, choices=tuple(choices), **more)


def _format(others: Mapping[str, Any]) -> str:
    """The format that the ending of --out names, if it names one."""
    ending = Path(others["out"] or "").suffix.lower()[1:]
    return ending if ending in FORMATS else "text"


# fmt: off
OPTIONS = (
    *group(
        "what to test",
        Option("data", values.dataset(*TESTED_ON), None,
               f"{', '.join(NAMES)}, or a folder with test/<class>/* or val/<class>/*",
               positional=True),
        Option("model", text, None, "the network's name, or the path of a run or of an exit-*.safetensors file",
               positional=True),
        Option("exit", values.exit_position, Default("the last exit that learnt"),
               "a position; all for the card of all exits; ensemble for the mean of their probabilities", "P"),
        programs=("test.py",),
    ),
    *group(
        "how to test it, and what to tell",
        _switch("mirror", False, "average the logits with those of each picture's mirror image", alone=True),
        _switch("perClass", False, "the error of each class, the worst first", alone=True),
        Option("policy", text, Default("none"), "let pictures leave early by this file of calibrate.py, which is "
               "looked for in the run's folder, too, and time that; with --exit all and --plot: draw it", "FILE"),
        _switch("compile", False, "with --policy: batches by compiled code, after a wait of a minute; torch.compile",
                alone=True),
        Option("json", values.file(".json"), Default("none"), "file for the card of --exit all", "FILE"),
        Option("plot", values.file(".png"), Default("none"), "file for a plot: with --exit all of error against "
               "multiply-adds, early exit beside it where the run has a policy.json; with --perClass of which class "
               "is taken for which", "FILE"),
        programs=("test.py",),
    ),
    *group(
        "what to export, and how",
        Option("data", values.dataset(), None,
               f"{', '.join(NAMES)}, or a folder with test/<class>/* or val/<class>/*, to compare on",
               positional=True),
        Option("model", text, None, "the network's name, or the path of a run or of an exit-*.safetensors file",
               positional=True),
        Option("exit", layer, Default("the last exit that learnt"), "a position", "P"),
        Option("policy", text, Default("none"), "write the whole network, which pictures leave early by this file of "
               "calibrate.py; it is looked for in the run's folder, too", "FILE"),
        Option("to", values.exported,
               Default("model.onnx, without --bundle", lambda others: None if others["bundle"] else "model.onnx"),
               "file to write: .onnx, .pt2, or with --half an exit file, exit-P.safetensors", "FILE"),
        Option("bundle", values.new_folder, Default("none"), "with --policy: folder to make, with an ONNX file for "
               "each segment and a run.py that sends batches of pictures through them", "DIR"),
        Option("check", number(int, 0, 10**7), Default("all"), "compare on N test pictures; 0: on noise, which needs "
               "no data", "N"),
        _switch("half", False, "keep the weights in 16 bits", alone=True),
        _switch("int8", False, "ONNX: compute in 8 bits, their ranges measured on training pictures", alone=True),
        programs=("export.py",),
    ),
    *group(
        "what to predict, and how to tell it",
        Option("model", text, None, "a network's name, a run's folder, an exit-*.safetensors or a file of export.py",
               positional=True),
        Option("pictures", text, None, "files, folders, or - for a list of them on standard input", "PICTURE",
               positional=True, several=True),
        Option("exit", layer, Default("the last exit that learnt"), "a position", "P"),
        Option("policy", text, Default("none"), "let pictures leave early by this file of calibrate.py, which is "
               "looked for in the run's folder, too, and tell the exit of each", "FILE"),
        Option("top", number(int, 1, 10**5), 1, "classes to tell of each picture, the likeliest first", "K"),
        _choice("format", FORMATS, Default("by the name of --out, else text", _format), "of what is told"),
        Option("out", values.answer_file, Default("standard output"), "file to write it into", "FILE"),
        programs=("predict.py",),
    ),
    *group(
        "what to calibrate, and for what",
        Option("data", values.dataset("train", *TESTED_ON), None,
               f"what the network was trained on: {', '.join(NAMES)}, or a folder with train/<class>/*; with "
               "--heldOut one with test/<class>/* or val/<class>/* will do",
               positional=True),
        Option("model", text, None, "the network's name, or the path of a run", positional=True),
        Option("budgetMACs", values.multiply_adds, Default("none"),
               "multiply-adds that a picture may take on average, such as 60M", "MACS"),
        Option("budgetMs", number(float, 1e-6, 1e6), Default("none"), "milliseconds that it may take on average, if "
               "each exit takes what its model takes for one picture on this machine", "MS"),
        Option("maxErrorIncrease", number(float, 1e-6, 100), Default("none"), "percentage points that the error may be "
               "above the last exit's; the policy is the fastest for which that is assured", "POINTS"),
        Option("confidence", number(float, 0.01, 0.999999),
               Default("0.95 with --maxErrorIncrease", lambda others: 0.95 if others["maxErrorIncrease"] else None),
               "with which that is assured", "C"),
        _choice("protocol", PROTOCOLS, THRESHOLD, "thresholds: one for all exits; or, for a budget, "
                "those by which a geometric law's shares of the pictures leave, as in MSDNet"),
        Option("heldOut", values.folder, Default("the pictures that --valSize held out in training"), "a folder with "
               "val/<class>/* or <class>/* of pictures neither trained on nor tested on", "DIR"),
        Option("out", text, Default("the run's folder"), "folder for policy.json, adaptive.csv and adaptive.png",
               "DIR"),
        programs=("calibrate.py",),
    ),
    *group(
        "what to draw, and where",
        Option("runs", text, None, "the folder of a run", "RUN", positional=True, several=True),
        Option("out", values.file(".png"), "runs.png", "file of the plot, a PNG", "FILE"),
        programs=("plot.py",),
    ),
    *group(
        "data",
        Option("data", values.dataset("train"), "CIFAR10", f"{', '.join(NAMES)}, or a folder with "
               "train/<class>/* and, unless --valSize is above 0, test/<class>/* or val/<class>/*", "DATA"),
        Option("dataDir", text, "./data", "where data sets are, or are downloaded to", "DIR",
               free="on resume", programs=(*TRAIN_AND_TEST, "export.py", "calibrate.py")),
        _switch("svhnExtra", True, "SVHN: use the extra pictures, too"),
        Option("trainSize", number(int, 1, 10**7), Default("all"),
               "train on N pictures, the same for every seed, the classes in the proportions of the whole", "N"),
        Option("inputSize", values.side, SIDE, "folders: side in pixels of the square that pictures are "
               "brought to, the shorter side scaled, the longer one cropped; "
               f"{LEGAL_SIDES}", "PX"),
        Option("valSize", number(int, 0, 10**7), 0, "hold out N training pictures, keep the best epoch on them", "N"),
    ),
    *group(
        "run",
        Option("save", text, "./", "folder that holds the folders of runs; networks are looked for there, then "
               "in pretrained/", "DIR", free="on resume", programs=(*TRAIN_AND_TEST, *SHIPPING, "calibrate.py")),
        Option("saveEvery", number(float, 0, 1e6), 10.0, "minutes between saves within an epoch", "MIN",
               free="on resume"),
        Option("resume", str, Default("start anew"), "go on with the run in DIR, or in this command's own "
               "folder; auto: start it there, or go on if it was started", "DIR|auto", alone="", free="on resume",
               once=True),
        Option("config", values.old_file, Default("none"), "file of options, TOML such as depth = 56, or a run's "
               "opt.json; what the command line gives wins over it, it wins over --recipe", "FILE",
               free="on resume", once=True),
        _switch("tensorboard", False, "write the numbers of log.csv for TensorBoard, too; needs its package",
                alone=True, free="on resume"),
        _switch("verbose", False, "list all options at the start, not only what differs from the defaults",
                alone=True, free="on resume"),
    ),
    *group(
        "network",
        Option("depth", layer, 26, "layers: 6n+2 (basic blocks) or 9n+2 (bottleneck)", "D"),
        Option("nOutputs", layer,
               Default("number of --exits, else 2", lambda others: len(others["exits"]) if others["exits"] else 2),
               "number of exits; 1 is the plain ResNet", "K"),
        Option("exits", values.positions, Default("published, or evenly spread"),
               "positions of the exits, such as 15,35,56", "P,P,..."),
        Option("widen", number(int, 1, MAX_WIDEN),
               Default("10 at depth 26, else 1", lambda others: 10 if others["depth"] == 26 else 1),
               "widen factor k", "K"),
        Option("dropout", number(float, 0, 0.95), 0.0, f"dropout rate in the blocks; {DROPOUT} without a value", "P",
               alone=DROPOUT),
        Option("shortcutType", str.upper, Default("A if k is 1, else B"), "A: zero-padded identity, B: 1x1 convolution",
               choices=("A", "B")),
    ),
    *group(
        "training",
        Option("retrain", text, Default("fresh weights"), "begin with the weights of this trained network, by its "
               "name, or by the path of its run; for other classes its linear layers are fresh", "MODEL"),
        _choice("recipe", RECIPES, "paper", "what other options are by default: as the authors have them, or for fewer "
                f"epochs, {MEANT}", free="between runs"),
        Option("nEpochs", number(int, 1, 100000), 400, "epochs", "N"),
        Option("testEvery", number(int, 1, 100000), 1, "test after every Nth epoch, and after the last", "N",
               free="between runs"),
        Option("batchsize", number(int, 1, 65536), 128, "pictures a step", "N"),
        _choice("schedule", ("step", "cosine", "onecycle"), "step",
                "learning rate: step (/10 at 40 % and 60 %), cosine, onecycle"),
        Option("LR", number(float, 1e-9, 100), 0.1, "(highest) learning rate", "LR"),
        _switch("scaleLR", False, "multiply LR by batchsize / 128"),
        _choice("optimizer", ("sgd", "muon"), "sgd", "sgd, or Muon for the blocks' kernels"),
        Option("momentum", number(float, 0, 0.9999), 0.9, "Nesterov momentum; 0: plain SGD", "M"),
        Option("weightDecay", number(float, 0, 1), 1e-4, "weight decay", "W"),
        _switch("decayNorms", True, "weight decay on batch norms and biases, too"),
        _switch("syncBN", False, "under torchrun: batch norm over the whole batch, not over the part of each process"),
        Option("ema", number(float, 0, 0.999999), 0.0, "keep the weights' moving average of this decay", "D"),
        Option("manualSeed", number(int, 0, 2**32 - 1), 0, "seed of all that training draws", "N", free="between runs"),
    ),
    *group(
        "losses",
        Option("exitWeights", values.weights, "sum", "sum (all 1), depth, or a list, shallow to deep, as 0.5,1", "W"),
        _choice("exitSchedule", ("constant", "deepen"), "constant",
                "deepen: the first exit's weight falls from 1.5 to 0.5 times, the last's rises"),
        Option("labelSmoothing", number(float, 0, 0.9), 0.0, "part of a target spread over all classes", "S"),
        Option("distill", number(float, 0, 1000), 0.0, "weight of what exits learn from the teacher", "W"),
        _choice("teacher", ("last", "ensemble"), "last", "the last exit, or the mean logits of all that learn"),
        Option("temperature", number(float, 0.1, 100), 1.0, "of the distillation's softmax", "T"),
    ),
    *group(
        "augmentation",
        _choice("padding", PADDINGS, "black", "what random crops see beyond a picture's edge: black, "
                "the data's mean colour (in folders the picture's own), or the picture mirrored"),
        _switch("alternateFlip", False, "mirror in every second epoch, not by chance"),
        Option("cutout", number(int, 0, SIDES[-1] - 1), 0, "paint over a square of so many pixels; 0: none", "PX"),
        Option("mixup", number(float, 0, 100), 0.0, "mix pictures and classes in pairs, by Beta(A, A); 0: not", "A"),
        Option("startSize", number(int, 8, SIDES[-1]), Default("inputSize", lambda others: others["inputSize"]),
               "side in pixels to begin with, growing by 8 up to inputSize in the first half", "PX"),
    ),
    *group(
        "machine",
        Option("nGPU", number(int, 0, 1024), Default("1 if there is one"), "GPUs to share each batch among; 0: CPU",
               "N", free="on resume", programs=(*TRAIN_AND_TEST, "predict.py", "calibrate.py")),
        Option("cpuThreads", number(int, 1, 1024), Default("as PyTorch finds best"), "threads of each process that "
               "compute on the CPU; another number rounds differently", "N",
               free="on resume", programs=(*TRAIN_AND_TEST, "predict.py", "calibrate.py")),
        Option("nThreads", number(int, 0, 256), 2, "loader workers; 0: none", "N", free="on resume"),
        _switch("shareGradInput", False, "save memory: recompute activations in the backward pass",
                free="between runs"),
        _choice("precision", ("auto", "float", "bf16", "half"), "float", "arithmetic of the network: 32-bit, bfloat16, "
                "half (in training with a gradient scaler); auto: bf16 where the machine computes it natively",
                auto=True, programs=(*TRAIN_AND_TEST, "predict.py", "calibrate.py")),
        Option("compile", boolean_or_auto, False, "faster steps after a wait of a minute: torch.compile, one device; "
               "auto: where a compiler works and the run is long enough to earn it", "true|false|auto",
               auto=True, free="between runs"),
    ),
)
# fmt: on


def _program(name: str, *texts_and_rules: Any, **more: Any) -> Program:
    """A program with those of `OPTIONS` that are for it."""
    return Program(name, tuple(option for option in OPTIONS if name in option.programs), *texts_and_rules, **more)


MAIN = _program(
    "main.py",
    "Train a residual network with several exits at once; save one model per exit.",
    "With no option: AuxResNet-26-2/10 on CIFAR10",
    rules.training,
    presets=RECIPES | BY_DATASET,
)
TEST = _program(
    "test.py",
    "Print the test error of a trained model, in percent.",
    "Example: python test.py CIFAR10 AuxResNet-56-5",
    rules.testing,
)
PLOT = _program(
    "plot.py",
    "Draw runs into one plot; print mean and standard deviation over those of one configuration.",
    "Example: python plot.py runs/*/CIFAR10-AuxResNet-26-2",
)
PREDICT = _program(
    "predict.py",
    "Tell the classes of pictures.",
    "Example: python predict.py CIFAR10-AuxResNet-56-5 cat.png",
    rules.predicting,
)
CALIBRATE = _program(
    "calibrate.py",
    "Fit a policy by which easy pictures leave at early exits, on pictures that the network was not trained on.",
    "Give one of --budgetMACs, --budgetMs and --maxErrorIncrease. "
    "Example, of a network trained with --valSize: python calibrate.py DIGITS AuxResNet-26-4 --budgetMACs 35M",
    rules.calibrating,
)
EXPORT = _program(
    "export.py",
    "Write one exit, or a whole network and its policy, to be run without this program; or an exit file in 16 bits.",
    "Example: python export.py CIFAR10 AuxResNet-56-5 --exit 45 --to model.onnx",
    rules.exporting,
)
AUTO = tuple(option.name for option in MAIN.options if option.auto)
ONCE = tuple(option.name for option in MAIN.options if option.once)
FREE_ON_RESUME = tuple(option.name for option in MAIN.options if option.free_on_resume)
FREE_BETWEEN_RUNS = tuple(option.name for option in MAIN.options if option.free_between_runs)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The checked options of `main.py`, every default resolved.

    Raises UsageError naming the option, what was given and what is legal. What `--config FILE` gives counts as if the
    command line had given it. With `--resume DIR` the options saved in DIR stand in for the defaults.
    """
    given = MAIN.given(argv)
    goes_on = given.get("resume") not in (None, "", AUTO_RESUME)
    if "config" in given:
        given = {**_of_file(Path(given["config"]), given, goes_on), **given}
    if goes_on and "save" in given and real(Path(given["resume"])).parent != real(Path(given["save"])):
        raise UsageError(f"--resume {given['resume']} goes on there, not in --save {given['save']}; leave that out")
    rules.order_of_weights(given)
    if goes_on:
        given = {**vars(_of_run(Path(given["resume"]), given.get("data"))), **given}
    options = MAIN.checked({**_defaults(given), **given})  # of the data set, else of the recipe, else the plain ones
    if options.resume is None:
        rules.new_run(options)
    return options


def _of_file(path: Path, given: Mapping[str, Any], goes_on: bool) -> dict[str, Any]:
    """What the file of `--config` gives besides the command line. A run that goes on has to agree with all that its
    record says except the folder, from which it may have been moved. A new run takes of a record only the values that
    do not follow from others, so that the command line can change those others."""
    told, whole = stored.given(path, MAIN, given)
    if not stored.is_record(path):
        return told
    if goes_on:
        return {name: value for name, value in told.items() if name != "save"}
    with suppress(TypeError):  # where one of the others, which count for nothing, is of another kind
        kept = stated(whole)
        told = {name: value for name, value in told.items() if name in kept}
    return told


class PicturesMoved(UserError):
    """The folder of pictures that a run was trained on is no longer where it was."""


def _of_run(folder: Path, data: str | None) -> argparse.Namespace:
    """The options of a run that is to be resumed: those of opt.json, or, where that is missing or damaged, those that
    its training state has. `data` is as for `from_saved`. Raises PicturesMoved before it looks at the state."""
    try:
        return from_saved(stored.load(folder), data)
    except PicturesMoved:
        raise
    except UserError as error:
        from formats import state_file  # imports PyTorch, which other mistakes need not wait for

        if not state_file.is_in(folder):
            raise
        state, _ = state_file.read(folder)
        options = from_saved(state.get("options"), data)
        tell(f"{error}; going on with the options in the training state")
        return options


def from_saved(saved: Any, data: str | None = None) -> argparse.Namespace:
    """The options of a run from what it saved, checked like a command line; UserError where they are none,
    PicturesMoved where their pictures are not there. `data` is where a folder of them is now, if not where it was."""
    if not stored.are_of(saved, MAIN):
        raise UserError(f"the saved options are not those of a run, but {printable(saved, 80)}")
    named = {name: value for name, value in saved.items() if value is not None and name not in ONCE}
    named |= {name: "./" for name in ("save", "dataDir") if named.get(name) == ""}  # as older versions took it
    place = str(named.get("data", MAIN.resolved({})["data"]))
    if spelled(place) not in NAMES:
        named["data"] = place = data or place
        where = printable(place)
        if not is_folder(place, "train"):
            text = f"the run's pictures are no longer in {where}, or may not be read; give --data with their folder"
            raise PicturesMoved(text)
        if not named.get("valSize") and not any(is_folder(place, split) for split in TESTED_ON):
            text = f"the run's test pictures are no longer in {where}; bring them back, or give --data with a folder"
            raise PicturesMoved(f"{text} that has them")
    try:
        # What an older version did not know is at its plain default, whatever the recipe has by now.
        return MAIN.checked(MAIN.given([f"--{name}={as_text(value)}" for name, value in named.items()]))
    except UsageError as error:
        raise UserError(f"the saved options are not those of a run: {error}") from error


def _defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of the recipe and of the data set that are given, or that are so by default."""
    named = MAIN.resolved(given)
    return {**RECIPES.get(named["recipe"], {}), **BY_DATASET.get(named["data"], {})}


def stated(whole: Mapping[str, Any]) -> dict[str, Any]:
    """The values without those that follow from the others: what a command line has to give for them to be so."""
    defaults, given = _defaults(whole), dict(whole)
    for name, value in whole.items():
        others = {other: kept for other, kept in given.items() if other != name}
        if as_text(MAIN.resolved({**defaults, **others})[name]) == as_text(value):
            given = others
    idle = () if whole.get("distill") else rules.OF_DISTILLATION  # a new run is not given them
    return {name: value for name, value in given.items() if name not in idle}


def of_header(header: Mapping[str, Any]) -> dict[str, Any]:
    """What the header of an exit file says of its run's options: those that this program knows, with values that it
    allows; None stands for the default."""
    return stored.known(header.get("options"), MAIN)


def shaping(options: argparse.Namespace, retrained: str | None = None) -> dict[str, Any]:
    """The options that shaped a run's result, its data set by its label, and what it began with, if not with fresh
    weights, by the name of the run that was `retrained`: nothing in them is a path of the machine."""
    shaped = {name: value for name, value in vars(options).items() if name not in FREE_ON_RESUME}
    return {**shaped, "data": label(options.data), "retrain": retrained}


def command(shaped: Mapping[str, Any]) -> str:
    """The command line that trains with the options that `shaping` gave, with the paths left open of a folder of
    pictures and of a run: what differs from the defaults of its data set and recipe. What this program does not know is
    left out."""
    given = stated({name: value for name, value in stored.known(shaped, MAIN).items() if value is not None})
    if "data" in given and given["data"] not in NAMES:
        given["data"] = f"path/to/{given['data']}"
    if "retrain" in given:
        given["retrain"] = f"path/to/{given['retrain']}"
    return " ".join(["python main.py", *(f"--{name} {quoted(as_text(value))}" for name, value in given.items())])


def table(options: argparse.Namespace) -> str:
    """The options of a run in groups, a line each: those that differ from the plain defaults, with --verbose all."""
    return listing(MAIN, options, options.verbose, without=("resume", "verbose"))


def resumed(options: argparse.Namespace, before: argparse.Namespace) -> argparse.Namespace:
    """The options with which a run goes on: what the machine chose before in place of `auto`, what describes the same
    network in other words in the words of before, and the place in which the network lay that it began with. Raises
    UserError naming every option that contradicts those before, UsageError where what the machine chose is no longer
    allowed; more epochs are no contradiction."""
    network, former = names.of_options(vars(options)), names.of_options(vars(before))
    same = [name for name, field in names.NETWORK.items() if getattr(network, field) == getattr(former, field)]
    chosen = [name for name in AUTO if getattr(options, name) == "auto"]
    begun = ["retrain"] if options.retrain and before.retrain else []  # it is not read again
    options = MAIN.checked({**vars(options), **{name: getattr(before, name) for name in (*same, *chosen, *begun)}})
    now, then = vars(options), vars(before)
    differences = [
        f"{option.name} is {in_words(option, now[option.name])}, was {in_words(option, then[option.name])}"
        for option in MAIN.options
        if now[option.name] != then[option.name] and not _may_change(option.name, options, before)
    ]
    if differences:
        told = f"these options contradict the run to be resumed: {'; '.join(differences)}; leave them out"
        if now["nEpochs"] > then["nEpochs"] and not _may_change("nEpochs", options, before):
            told += f" (more epochs are for --schedule {' or '.join(EXTENDABLE)} at one size, with constant weights)"
        raise UserError(told)
    return options


def _may_change(name: str, options: argparse.Namespace, before: argparse.Namespace) -> bool:
    """Whether a resumed run may have another value. Compiled steps round differently, but a machine without a compiler
    must be able to go on. Only an epoch that is tested can be kept."""
    if name in (*FREE_ON_RESUME, "compile", "testEvery"):
        return True
    steady = options.startSize == options.inputSize and options.exitSchedule == "constant"
    return name == "nEpochs" and options.schedule in EXTENDABLE and steady and options.nEpochs >= before.nEpochs
