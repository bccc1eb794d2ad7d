"""What an epoch of each published network takes on the CPU: its rate, and the time that follows for each data set.

python -m benchmarks.networks --precision bf16 --shareGradInput true

Evaluation and the loading of data are not counted. Networks are measured one after another, as some fill the memory.
"""

import sys
from functools import partial

from benchmarks.step import ours
from benchmarks.timing import interleaved, machine

BATCHES = {
    "AuxResNet-26-2": 128,
    "AuxResNet-44-2": 128,
    "AuxResNet-56-2": 128,
    "AuxResNet-56-3": 128,
    "AuxResNet-56-5": 128,
    "AuxResNet-26-2/10": 32,
    "ResNet-1001": 8,
}
PICTURES = {"CIFAR": 50_000, "SVHN": 604_388}
ROUNDS = 3


def main() -> None:
    """Print a row for each network, as Markdown, with the options given for all of them."""
    shared = sys.argv[1:]
    print(f"{' '.join(shared) or 'eager, float32'}; {machine()}; median of {ROUNDS} steps\n")
    print("| network | batch | images/s | " + " | ".join(f"hours an epoch, {data}" for data in PICTURES) + " |")
    print("|---|---|---|" + "---|" * len(PICTURES))
    for name, batch in BATCHES.items():
        seconds = interleaved({name: partial(ours, name, *shared, batch=batch)}, ROUNDS, warm_up=1)[name]
        hours = " | ".join(f"{count * seconds / batch / 3600:.2f}" for count in PICTURES.values())
        print(f"| {name} | {batch} | {batch / seconds:.1f} | {hours} |", flush=True)


if __name__ == "__main__":
    main()
