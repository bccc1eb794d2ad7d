"""Tell the classes of pictures.

python predict.py CIFAR10-AuxResNet-56-5 cat.png dog.jpg pictures/   # by the last exit: cat.png  cat 0.9871
python predict.py CIFAR10-AuxResNet-56-5 cat.png --exit 45 --top 3   # by another exit, the three likeliest classes
python predict.py CIFAR10-AuxResNet-26-2 cat.png --policy policy.json    # by the first sure one: exit 19
python predict.py path/to/run pictures/ --format csv --out classes.csv
find / -name '*.jpg' | python predict.py model.onnx -        # by a file of export.py; the pictures are those of a list
"""

import codecs
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import opts
from options import rules
from options.values import EXPORTED
from reports import destination
from reports.answers import FORMATS, Answer
from system import files
from system.errors import UserError, one_line_errors
from system.text import LONGEST_MESSAGE, printable

if TYPE_CHECKING:
    from inference.classifier import Model

ANY = "*"  # in place of a data set: whichever there is


def main(argv: Sequence[str]) -> None:
    """Find the model and the pictures, ask the one about the others, print."""
    options = opts.PREDICT.parsed(argv)
    folder = run_called(options.model)
    if options.out:
        destination.check(Path(options.out))

    from inference import prediction  # imports PyTorch, which --help and mistakes need not wait for

    paths = prediction.listed(named(options.pictures))
    read = [*paths, *(["/dev/stdin"] if "-" in options.pictures else [])]
    if options.out and Path(options.out).exists() and any(same(options.out, path) for path in read):
        raise UserError(f"--out {options.out} is one of the pictures, or the list of them; give another file")
    model = load(options, folder)
    unreadable: list[UserError] = []
    answers = readable(prediction.answers(model, paths, options.top), len(paths), bool(options.out), unreadable)
    write(FORMATS[options.format](answers, model.leaves_early), options.out)
    if unreadable:
        raise UserError(f"{len(unreadable)} of {len(paths)} pictures could not be read")


def run_called(model: str) -> str | None:
    """What the folder of the run of a network's name is called, with `ANY` for the data set where that is not given;
    None for a path. Raises UsageError for what is neither."""
    if Path(model).suffix in EXPORTED:
        return None
    return rules.run_called(model, ANY, ".safetensors, .pt2 or .onnx")


def named(words: Iterable[str]) -> Iterator[str]:
    """The words as paths; in the place of `-` the paths that standard input has, one a line."""
    for word in words:
        if word != "-":
            yield word
            continue
        if sys.stdin is None:
            raise UserError("- reads paths from standard input, which is closed; give paths, or open it")
        for number, line in enumerate(sys.stdin.buffer):
            line = line.rstrip(b"\r\n") if number else line.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n")
            if line.strip():
                yield os.fsdecode(line)  # a path as the system has it


def same(path: str, other: str) -> bool:
    """Whether two names are those of one file."""
    try:
        return Path(path).samefile(other)
    except (OSError, ValueError):  # a name that no file can have: it is named when it is to be read
        return False


def load(options: Namespace, folder: str | None) -> "Model":
    """The model that the options name, ready to be asked; `folder` is what `run_called` says."""
    from inference import exported, policies, prediction, saved
    from system import devices, machine

    devices.compute_in(options.cpuThreads)
    path = Path(options.model)
    if path.suffix in EXPORTED:
        return exported.read(path, options.exit, options.nGPU)
    folder = folder and only(folder, saved.roots(options.save))
    model = saved.find(options.model, folder, saved.LEARNT if options.policy else options.exit, options.save)
    policy = policies.find(Path(options.policy), model) if options.policy else None
    runs_on = machine.choose(options.nGPU, options.precision)
    return prediction.of_policy(model, policy, runs_on) if policy else prediction.of_saved(model, runs_on)


def only(folder: str, roots: Sequence[Path]) -> str:
    """The folder itself, unless its data set is `ANY`; then what the one folder of a run of that network under the
    roots is called. Where there is none, the name of the network, to be named as missing.

    Raises UserError where there are runs on several data sets.
    """
    from inference import saved

    if not folder.startswith(f"{ANY}-"):
        return folder
    name = folder.removeprefix(f"{ANY}-")
    fitting = sorted({run.name for run in saved.runs(roots) if run.name.endswith(f"-{name}")})
    if len(fitting) > 1:
        raise UserError(f"{name} was trained on several data sets; give one of {', '.join(fitting)}")
    return fitting[0] if fitting else name


def readable(
    answers: "Iterable[Answer | UserError]", total: int, into_file: bool, unreadable: list[UserError]
) -> "Iterator[Answer]":
    """The answers, with a bar on a terminal unless they are printed on that, where no path may break a line; what could
    not be read is named on standard error and added to `unreadable`."""
    from tqdm import tqdm

    seen = sys.stdout.isatty() and not into_file
    with tqdm(answers, "predicting", total, leave=False, unit="img", disable=seen or None) as bar:
        for answer in bar:
            if isinstance(answer, UserError):
                unreadable.append(answer)
                bar.write(f"predict.py: {answer}", file=sys.stderr)
            else:
                yield answer._replace(path=printable(answer.path, LONGEST_MESSAGE)) if seen else answer


def write(pieces: Iterable[str], target: str | None) -> None:
    """Write the pieces of a text into a file, whole or not at all, or onto standard output."""
    if target:
        files.write(Path(target), "".join(pieces).encode(errors="surrogateescape"))
        return
    if not sys.stdout.isatty():  # paths are printed as the system has them, for other programs to read
        sys.stdout.verbatim = True
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    for piece in pieces:
        sys.stdout.write(piece)


if __name__ == "__main__":
    with one_line_errors("predict.py"):
        main(sys.argv[1:])
