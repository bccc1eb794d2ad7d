"""What an epoch of each published network takes on the CPU, and where the time of its steps goes.

python -m benchmarks.networks --recipe fast --compile true

Evaluation is not counted; batches are made within the steps, without workers. Networks are measured one after another,
as some fill the memory. Options are those of main.py; each network is measured in float32 and in bfloat16.
"""

import argparse

from benchmarks import shares
from benchmarks.timing import machine

BATCHES = {
    "AuxResNet-26-2": 128,
    "AuxResNet-44-2": 128,
    "AuxResNet-56-2": 128,
    "AuxResNet-56-3": 128,
    "AuxResNet-56-5": 128,
    "AuxResNet-26-2/10": 128,
    "ResNet-1001": 8,
}
PICTURES = {"CIFAR": 50_000, "SVHN": 604_388}
ROUNDS = 3


def main() -> None:
    """Print two rows for each network, as Markdown, with the options given for all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _, options = parser.parse_known_args()
    print(f"{' '.join(options) or 'eager, --recipe paper'}; {machine()}; median of {ROUNDS} steps\n")
    titles = (*shares.TITLES, *(f"minutes an epoch, {data}" for data in PICTURES))
    print(shares.markdown(titles, ["---"] * len(titles)))
    for name, batch in BATCHES.items():
        for precision, parts in shares.measure(name, batch, options, ROUNDS).items():
            minutes = (f"{count * parts['step'] / batch / 60:.1f}" for count in PICTURES.values())
            print(shares.markdown((*shares.row(name, batch, precision, parts), *minutes)), flush=True)


if __name__ == "__main__":
    main()
