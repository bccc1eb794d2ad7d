"""What the ingredients of a recipe cost: a training step with them over one without, in turn, on the CPU.

python -m benchmarks.ingredients --compile true --precision bf16
python -m benchmarks.ingredients --network AuxResNet-26-2/10 --precision bf16

Options besides --network are those of main.py. Smaller pictures, which save time, are a case of their own: a step at
side 16 has a quarter of the pixels. Cutout, crops and flips happen in the loader's workers.
"""

import argparse
from functools import partial

from benchmarks.cases import ours
from benchmarks.timing import interleaved, machine

ROUNDS = 7
ALL = (
    "--ema", "0.99", "--labelSmoothing", "0.1", "--decayNorms", "false", "--distill", "1", "--teacher", "ensemble",
    "--exitSchedule", "deepen", "--alternateFlip", "true", "--cutout", "8", "--scaleLR", "true",
    "--schedule", "onecycle",
)  # fmt: skip


def main() -> None:
    """Run the cases in turn, with the options given for all of them, and print what each adds to a step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--network", default="AuxResNet-26-2")
    own, shared = parser.parse_known_args()
    network = own.network
    cases = {
        "none": partial(ours, network, *shared),
        "all but Muon": partial(ours, network, *shared, *ALL),
        "Muon": partial(ours, network, *shared, "--optimizer", "muon"),
        "side 16": partial(ours, network, *shared, "--startSize", "16"),
        "side 16, Muon": partial(ours, network, *shared, "--startSize", "16", "--optimizer", "muon"),
    }
    seconds = interleaved(cases, ROUNDS)
    print(f"{network}, {' '.join(shared) or 'eager, float32'}; {machine()}; median of {ROUNDS}\n")
    for name, value in seconds.items():
        print(f"{name:13}  {1000 * value:6.1f} ms a step  {100 * (value / seconds['none'] - 1):+5.1f} %")


if __name__ == "__main__":
    main()
