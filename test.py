"""Print the test error of a saved model, in percent.

python test.py CIFAR10 AuxResNet-26-2/10                     # error 3.91: the last exit
python test.py CIFAR10 AuxResNet-26-2/10 --exit 19           # another exit, from its own file
python test.py CIFAR10 AuxResNet-26-2/10 --exit all          # a table of all, in one pass
python test.py CIFAR10 path/to/exit-19.safetensors
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
    is_path = options.model.endswith(".safetensors")
    folder = None if is_path else names.run_folder(opts.label(options.data), names.parse(options.model).name)

    import devices  # imports PyTorch, which --help and mistakes need not wait for

    from inference import saved
    from system import arithmetic

    files = saved.find(options.model, folder, [Path(options.save), PRETRAINED])
    model = saved.load(saved.choose(files, options.exit))
    where = devices.choose(options.nGPU)
    precision = arithmetic.choose_precision(options.precision, where[0])
    if note := arithmetic.slow(precision, where[0]):
        print(note, file=sys.stderr)
    dtype = arithmetic.DTYPES[precision]
    errors = saved.test(model, options.data, Path(options.dataDir), where, dtype)
    if options.exit == "all":
        print(saved.describe(model, errors, where[0], dtype))
    else:
        print(f"error {errors[-1]:.2f}")


if __name__ == "__main__":
    with one_line_errors("test.py"):
        main(sys.argv[1:])
