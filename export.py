"""Write one exit as a file that runs without this program: ONNX, or a .pt2 that PyTorch loads by itself.

python export.py CIFAR10 AuxResNet-56-5 --exit 45 --to model.onnx   # for onnxruntime, in any language
python export.py CIFAR10 AuxResNet-56-5 --exit 45 --to model.pt2    # for torch.export.load
python export.py CIFAR10 path/to/run --to small.onnx --half         # weights in 16 bits

Pictures go in as N×side×side×3 bytes, probabilities of the classes come out; normalisation is inside. The file is asked
about the test pictures and is put in its place only if it answers as the exit does.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import opts
from models import names
from reports.tables import table
from system import files
from system.errors import UserError, one_line_errors

if TYPE_CHECKING:
    from inference.classifier import Model
    from inference.comparison import Comparison
    from inference.saved import SavedModel

PRETRAINED = Path(__file__).parent / "pretrained"
ROUNDING = {False: 1e-4, True: 0.05}  # how far probabilities may move, by --half; seen: 2e-6 and 0.004
INT8_COST = 1.0  # points of error that 8 bits may add


def main(argv: Sequence[str]) -> None:
    """Find the exit, write it, compare, put the file in its place, print."""
    options = opts.parse_export(argv)
    path, target = Path(options.model), Path(options.to)
    is_path = path.suffix == ".safetensors" or any(path.glob("exit-*.safetensors"))
    folder = None if is_path else names.find_folder(opts.label(options.data), options.model)
    files.check_target(target)

    from inference import exported, saved  # imports PyTorch, which --help and mistakes need not wait for

    if target.suffix == ".onnx":
        exported.require_packages(target)
    found = saved.find(options.model, folder, [Path(options.save), PRETRAINED])
    model = saved.load(saved.choose(found, options.exit))
    content = written(options, model)
    runs = exported.runnable(content, target)
    compared = compare(options, model, runs)
    check(compared, options)
    files.write(target, content)
    print(report(model, runs, compared, target, on_noise=options.check == 0))


def written(options: Namespace, model: "SavedModel") -> bytes:
    """The content of the file that the options ask for."""
    from inference import exported

    content = exported.write(model, Path(options.to).suffix, options.half)
    if not options.int8:
        return content
    from inference import quantised  # imports onnx

    return quantised.int8(content, quantised.training_pictures(model, options.data, Path(options.dataDir)))


def compare(options: Namespace, model: "SavedModel", runs: "Model") -> "Comparison":
    """The exit beside its exported file: on all test pictures, on `--check` N of all classes, or, where N is 0, on
    noise."""
    from datasets.pictures import balanced_order
    from inference import comparison, saved

    if options.check == 0:
        return comparison.compare(model, runs, comparison.noise(model.sizing.side))
    pictures = saved.pictures(model, options.data, Path(options.dataDir))
    chosen = pictures if options.check is None else pictures.take(balanced_order(pictures.targets)[: options.check])
    return comparison.compare(model, runs, saved.shown(chosen))


def check(compared: "Comparison", options: Namespace) -> None:
    """Raise UserError where an exported file does not answer as the exit does."""
    told = f"on {compared.pictures:,} pictures"
    if options.int8 and not compared.after <= compared.before + INT8_COST:
        raise UserError(
            f"{options.to} is not written: 8 bits raise the error {told} from {compared.before:.2f} to "
            f"{compared.after:.2f}; leave out --int8"
        )
    if not options.int8 and not compared.difference <= ROUNDING[options.half]:
        raise UserError(
            f"{options.to} is not written: {told} its probabilities are up to {compared.difference:.2g} from the "
            f"exit's, which is more than rounding ({ROUNDING[options.half]:g}); try the other kind of file"
        )


def report(model: "SavedModel", runs: "Model", compared: "Comparison", target: Path, on_noise: bool) -> str:
    """What was made of what: sizes, errors, latencies."""
    from inference import saved
    from inference.exported import CPU
    from inference.latency import latency

    (source,) = model.files.values()
    times = [latency(ask, model.sizing.side, CPU).median for ask in (saved.ready(model, [CPU]), runs.probabilities)]
    columns = {
        "file": [str(source), str(target)],
        "MB": [f"{path.stat().st_size / 1e6:.2f}" for path in (source, target)],
        "ms a picture": [f"{milliseconds:.2f}" for milliseconds in times],
    }
    if not on_noise:
        columns["error"] = [f"{error:.2f} %" for error in (compared.before, compared.after)]
    kind = "pictures of noise" if on_noise else "test pictures"
    told = f"{compared.pictures:,} {kind}: probabilities differ by at most {compared.difference:.2g}"
    return f"{table(columns, words={'file'})}\n\n{told}"


if __name__ == "__main__":
    with one_line_errors("export.py"):
        main(sys.argv[1:])
