"""Write one exit, or a whole network that pictures leave early, to be run without this program; or an exit file in 16
bits.

python export.py CIFAR10 AuxResNet-56-5 --exit 45 --to model.onnx   # for onnxruntime, in any language
python export.py CIFAR10 AuxResNet-56-5 --exit 45 --to model.pt2    # for torch.export.load
python export.py CIFAR10 path/to/run --to small.onnx --half         # weights in 16 bits
python export.py CIFAR10 path/to/run --to small/exit-26.safetensors --half      # an exit file of half the bytes
python export.py CIFAR10 AuxResNet-56-5 --policy policy.json --to model.onnx    # all exits in a file that stops early
python export.py CIFAR10 AuxResNet-56-5 --policy policy.json --bundle DIR       # a file for each segment, and a router

What runs without this program takes N×side×side×3 bytes and gives probabilities; normalisation is inside. All files are
asked about the test pictures, and put in their place only if they answer as the exits do.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import opts
from datasets import catalog
from models import names
from reports.tables import table
from system import files
from system.errors import UserError, one_line_errors

if TYPE_CHECKING:
    from datasets.pictures import Pictures
    from inference.classifier import Answers
    from inference.comparison import Comparison
    from inference.early_exit import Rule
    from inference.policies import Policy
    from inference.saved import SavedModel

ROUNDING = {False: 1e-4, True: 0.05}  # how far probabilities may move, by --half; seen: 2e-6 and 0.004
INT8_COST = 1.0  # points of error that 8 bits may add
TIMED = 200  # pictures


def main(argv: Sequence[str]) -> None:
    """Find the exits, write them, compare, put the files in their place, print."""
    options = opts.EXPORT.parsed(argv)
    target = Path(options.bundle or options.to)
    folder = names.folder_called(catalog.label(options.data), options.model)
    (files.check_new_folder if options.bundle else files.check_target)(target)

    # These import PyTorch, which --help and mistakes need not wait for.
    from inference import asking, comparison, conditional, early_exit, exported, latency, policies, saved

    if options.bundle or target.suffix == ".onnx":
        exported.require_packages(target)
    model = saved.find(options.model, folder, saved.LEARNT if options.policy else options.exit, options.save)
    if target.suffix == names.EXIT_SUFFIX:
        check_exit_file(target, *model.files)
    policy = policies.find(Path(options.policy), model) if options.policy else None
    if policy and not options.bundle and len(policy.positions) > conditional.MOST_EXITS:
        raise UserError(
            f"--to {target}: a file may have {conditional.MOST_EXITS} exits, {options.policy} is for "
            f"{len(policy.positions)}; give --bundle DIR in its place, which may have any number"
        )
    rule = policy or early_exit.only(*model.files)
    pictures = to_compare(options, model)
    content, answers = made(options, model, policy, target)
    compared = comparison.compare(model, rule, answers, asking.under_a_bar(pictures))
    check(compared, options, target)
    (files.write_folder if options.bundle else files.write)(target, content)
    own, some = answers_of(model, rule), pictures.sample(TIMED).images
    times = [latency.of(taken).mean for taken in latency.in_turns([own, answers], some.split(1), latency.WARM_UP)]
    print(report(options, target, list(model.files.values()), rule.positions, compared, times))


def check_exit_file(target: Path, position: int) -> None:
    """Raise UserError where an exit file of this position would have another's name, or take the place of a file."""
    from formats import exit_file

    if exit_file.position_of(target) != position:
        raise UserError(f"--to {target}: the exit is {position}; give a folder and {names.exit_name(position)}")
    if target.exists():
        raise UserError(f"{target} is there already, and no exit file is replaced by another; give another folder")


def answers_of(model: "SavedModel", rule: "Rule") -> "Answers":
    """What exits answer to pictures that leave by a rule, on the CPU, with batch norms folded, as in `predict.py`."""
    from inference import routing
    from system.machine import ON_CPU

    return routing.answers(model, rule, ON_CPU)


def made(
    options: Namespace, model: "SavedModel", policy: "Policy | None", target: Path
) -> "tuple[bytes | dict[str, bytes], Answers]":
    """What the options ask for: the content of a file, or of each file of a folder by its name; and what that answers
    to pictures."""
    from inference import bundle, conditional, early_exit, exported, exporting, saved

    if target.suffix == names.EXIT_SUFFIX:
        content, small = saved.halved(model)
        return content, answers_of(small, early_exit.only(*small.files))
    if options.bundle:
        content = bundle.contents(model, policy, options.half)
        return content, bundle.answers(content)
    if policy:
        content = conditional.content(model, policy, options.half)
    elif options.int8:
        with exporting.packages():
            from inference import quantised  # imports onnx

        images = quantised.training_pictures(model, options.data, Path(options.dataDir))
        content = quantised.int8(exporting.content(model, target.suffix), images)
    else:
        content = exporting.content(model, target.suffix, options.half)
    return content, exported.runnable(content, target).answers


def to_compare(options: Namespace, model: "SavedModel") -> "Pictures":
    """The pictures to compare on: those of the test, `--check` N of them of all classes, or, where N is 0, noise."""
    from inference import asking, comparison

    if options.check == 0:
        return comparison.noise(model)
    return asking.test_pictures(model, options.data, Path(options.dataDir), options.check)


def check(compared: "Comparison", options: Namespace, target: Path) -> None:
    """Raise UserError where what was made does not answer as the exits do."""
    told = f"on {compared.pictures:,} pictures"
    if options.int8 and not compared.after <= compared.before + INT8_COST:
        raise UserError(
            f"{target} is not written: 8 bits raise the error {told} from {compared.before:.2f} to "
            f"{compared.after:.2f}; leave out --int8"
        )
    if not options.int8 and not compared.difference <= ROUNDING[options.half]:
        advice = "leave out --half" if options.half else "another version of PyTorch or onnxruntime may do better"
        raise UserError(
            f"{target} is not written: {told} its probabilities are up to {compared.difference:.2g} from those of "
            f"{'the network' if options.policy else 'the exit'}, which is more than rounding "
            f"({ROUNDING[options.half]:g}); {advice}"
        )


def report(
    options: Namespace,
    target: Path,
    exit_files: Sequence[Path],
    positions: Sequence[int],
    compared: "Comparison",
    times: Sequence[float],
) -> str:
    """What was made of the files of exits: sizes, errors, milliseconds; with a policy, where pictures leave."""
    written = list(target.iterdir()) if options.bundle else [target]
    columns = {
        "file": [str(files.near(exit_files[0].parent if options.policy else exit_files[0])), str(target)],
        "MB": [f"{sum(path.stat().st_size for path in paths) / 1e6:.2f}" for paths in (exit_files, written)],
        "ms a picture": [f"{milliseconds:.2f}" for milliseconds in times],
    }
    if options.check != 0:
        columns["error"] = [f"{error:.2f} %" for error in (compared.before, compared.after)]
    kind = "pictures of noise" if options.check == 0 else "test pictures"
    told = [f"{compared.pictures:,} {kind}: probabilities differ by at most {compared.difference:.2g}"]
    if options.policy:
        from reports.adaptive import leaving

        moved = f"; {compared.moved} of them elsewhere than before, by rounding" if compared.moved else ""
        told.append(f"{leaving(positions, compared.histogram)}{moved}")
    return "\n".join([table(columns, words={"file"}), "", *told])


if __name__ == "__main__":
    with one_line_errors("export.py"):
        main(sys.argv[1:])
