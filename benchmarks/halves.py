"""What leaving early costs in error: policies fitted on one half of the test pictures and tried on the other.

python -m benchmarks.halves --dataDir DIR           # DIR holds CIFAR-10; the network is that in pretrained/
python -m benchmarks.halves RUN --dataDir DIR       # another network, of the run in this folder
python -m benchmarks.halves --dataDir DIR --write halves    # two folders, odd and even, for calibrate.py and test.py

The network was trained on all training pictures, so that only test pictures are new to it. One half of them says
little: what early exit costs there differs from half to half by half as much as it is. So the test pictures are halved
many times by chance, and what is printed is the mean and the standard deviation.
"""

import argparse
import statistics
from pathlib import Path

import torch
from PIL import Image

from benchmarks.early_exit import RUN, halves, load
from datasets.pictures import Pictures
from formats import exit_file
from inference import asking, calibration, early_exit
from inference.calibration import Answered, Goal
from inference.early_exit import Rule
from models import metrics
from options.values import PROTOCOLS
from reports.tables import amount, table
from system.machine import ON_CPU

BUDGETS = (40e6, 50e6, 60e6, 80e6, 100e6)  # multiply-adds for one picture


def cost(goal: Goal, answers: Answered, half: torch.Tensor, macs: list[int], positions: tuple[int, ...]) -> float:
    """By how many percentage points a policy that is fitted on the pictures of `half` (N bool) errs more than the last
    exit, on the others."""
    seen, others = (answers.take(part.nonzero()[:, 0]) for part in (half, ~half))
    rule = Rule(positions, *calibration.fit(goal, seen, macs))
    early = early_exit.simulate(others.logits, rule).figures(others.targets, macs)["error"]
    return early - metrics.top_error(others.logits[-1], others.targets)


def write_half(folder: Path, pictures: Pictures) -> None:
    """Write pictures as a folder's, in the folders of their classes."""
    for number, (image, target) in enumerate(zip(pictures.images, pictures.targets.tolist(), strict=True)):
        place = folder / pictures.classes[target]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(place / f"{number:04}.png")


def main() -> None:
    """Print a row for each budget, or write two halves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, default=RUN)
    parser.add_argument("--dataDir", type=Path, default=Path("data"))
    parser.add_argument("--halvings", type=int, default=50)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write two halves as PNG files; measure nothing")
    arguments = parser.parse_args()
    if arguments.halvings < 2:
        parser.error(f"--halvings {arguments.halvings}: a standard deviation takes two or more")
    if not exit_file.files_in(arguments.run):
        parser.error(f"{arguments.run} has no exit files; give the folder of a run on CIFAR-10")
    if arguments.write:
        for place, half in zip(("odd/val", "even/test"), halves(arguments.dataDir), strict=True):
            write_half(arguments.write / place, half)
        return
    model = load(arguments.run)
    pictures = asking.test_pictures(model, "CIFAR10", arguments.dataDir)
    answers = Answered(*asking.collect(model, pictures, ON_CPU), "CIFAR10 test")
    macs = model.macs_to_exits
    draw = torch.Generator().manual_seed(0)
    parted = [torch.randperm(len(pictures), generator=draw) < len(pictures) // 2 for _ in range(arguments.halvings)]
    columns = {"multiply-adds": [amount(round(budget)) for budget in BUDGETS]}
    for protocol in PROTOCOLS:
        goals = [Goal("budgetMACs", budget, protocol=protocol) for budget in BUDGETS]
        costs = [[cost(goal, answers, half, macs, model.network.exits) for half in parted] for goal in goals]
        columns[protocol] = [f"{statistics.mean(row):+.2f} ± {statistics.stdev(row):.2f}" for row in costs]
    last = metrics.top_error(answers.logits[-1], answers.targets)
    print(f"{arguments.run.name}; points above the last exit, {last:.2f} % at {amount(macs[-1])}")
    print(f"{arguments.halvings} halvings\n")
    print(table(columns))


if __name__ == "__main__":
    main()
