"""Print the test error of a saved model, in percent.

python test.py CIFAR10 AuxResNet-26-2/10                     # error 3.91: the last exit
python test.py CIFAR10 AuxResNet-26-2/10 --exit 19           # another exit, from its own file
python test.py CIFAR10 AuxResNet-26-2/10 --exit all          # a table of all, in one pass
python test.py CIFAR10 path/to/run                           # or path/to/run/exit-19.safetensors
python test.py CIFAR10 AuxResNet-26-2/10 --precision auto    # in 16 bits where the machine computes them natively
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import opts
from models import names
from system.errors import one_line_errors

PRETRAINED = Path(__file__).parent / "pretrained"


def main(argv: Sequence[str]) -> None:
    """Find the files, rebuild the network, test it, print."""
    options = opts.parse_test(argv)
    path = Path(options.model)
    is_path = path.suffix == ".safetensors" or any(path.glob("exit-*.safetensors"))
    folder = None if is_path else names.find_folder(opts.label(options.data), options.model)

    from inference import saved  # imports PyTorch, which --help and mistakes need not wait for
    from system import arithmetic, devices

    files = saved.find(options.model, folder, [Path(options.save), PRETRAINED])
    model = saved.load(saved.choose(files, options.exit))
    chosen = devices.choose(options.nGPU)
    precision = arithmetic.choose_precision(options.precision, chosen[0])
    if note := arithmetic.slow(precision, chosen[0]):
        print(note, file=sys.stderr)
    dtype = arithmetic.DTYPES[precision]
    errors = saved.test(model, options.data, Path(options.dataDir), chosen, dtype)
    if options.exit == "all":
        print(saved.describe(model, errors, chosen[0], dtype))
    else:
        print(f"error {errors[-1]:.2f}")


if __name__ == "__main__":
    with one_line_errors("test.py"):
        main(sys.argv[1:])
