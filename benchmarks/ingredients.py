"""What the ingredients of a recipe cost: a training step with them over one without, in turn, on the CPU.

python -m benchmarks.ingredients --compile true --precision bf16

Smaller pictures are left out, as they save time. Cutout, crops and flips happen in the loader's workers.
"""

import sys
from functools import partial

from benchmarks.cases import ours
from benchmarks.timing import interleaved, machine

NETWORK = "AuxResNet-26-2"
ROUNDS = 15
ALL = (
    "--ema", "0.99", "--labelSmoothing", "0.1", "--decayNorms", "false", "--distill", "1", "--teacher", "ensemble",
    "--exitSchedule", "deepen", "--alternateFlip", "true", "--cutout", "8", "--scaleLR", "true",
    "--schedule", "onecycle",
)  # fmt: skip


def main() -> None:
    """Run the cases in turn, with the options given for all of them, and print what each adds to a step."""
    shared = sys.argv[1:]
    cases = {
        "none": partial(ours, NETWORK, *shared),
        "all but Muon": partial(ours, NETWORK, *shared, *ALL),
        "Muon": partial(ours, NETWORK, *shared, "--optimizer", "muon"),
    }
    seconds = interleaved(cases, ROUNDS, warm_up=4)
    print(f"{NETWORK}, {' '.join(shared) or 'eager, float32'}; {machine()}; median of {ROUNDS}\n")
    for name, value in seconds.items():
        print(f"{name:12}  {1000 * value:6.1f} ms a step  {100 * (value / seconds['none'] - 1):+5.1f} %")


if __name__ == "__main__":
    main()
