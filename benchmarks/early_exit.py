"""Early exit: pictures routed by a policy of half the multiply-adds against the last exit, in batches and one by one.

python -m benchmarks.early_exit --dataDir DIR               # DIR holds CIFAR-10; the network is that in pretrained/
python -m benchmarks.early_exit --dataDir DIR --earlyon     # the package earlyon beside it, if it is installed

The network was trained on all training pictures, so the policy is fitted on one half of the test pictures and timed on
the other. What it costs in error is told by `benchmarks.halves`, over many halves.
"""

import argparse
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import earlyon
from benchmarks.timing import Case, interleaved, machine, timed
from datasets import catalog, splits
from datasets.pictures import Pictures
from formats import exit_file
from inference import asking, calibration, routing, saved
from inference.policies import Policy
from inference.saved import SavedModel
from reports.tables import amount, table
from system.machine import ON_CPU

RUN = Path(__file__).parent.parent / "pretrained" / "CIFAR10-AuxResNet-56-5"
BATCH = 128
TURN = {BATCH: 512, 1: 100}  # pictures that one turn of a case takes, by the size of their batches


def load(run: Path = RUN) -> SavedModel:
    """The network of a run, by default that in pretrained/."""
    return saved.load(exit_file.files_in(run))


def halves(root: Path) -> tuple[Pictures, Pictures]:
    """The test pictures with odd numbers, to fit a policy on, and those with even ones, to time it on."""
    pictures = splits.for_testing(catalog.find("CIFAR10", root))
    return tuple(pictures.take(np.arange(first, len(pictures), 2)) for first in (1, 0))


def fitted(model: SavedModel, pictures: Pictures, budget: float) -> Policy:
    """A policy of this many multiply-adds."""
    held = calibration.Answered(*asking.collect(model, pictures, ON_CPU), "CIFAR10 test")
    macs = model.macs_to_exits
    return calibration.make_policy(calibration.Goal("budgetMACs", budget), held, model.network, macs, macs)


def routed(policy: Policy, images: Tensor, size: int) -> Case:
    """The pictures in batches of a size, routed."""
    return each(routing.router(load(), policy, ON_CPU), images, size)


def last_exit(images: Tensor, size: int) -> Case:
    """The pictures in batches of a size, all by the last exit's standalone model."""
    model = load()
    return each(routing.single(model, max(model.files), ON_CPU), images, size)


def by_earlyon(policy: Policy, images: Tensor, size: int) -> Case:
    """The pictures in batches of a size, routed by earlyon."""
    normalise, network = asking.ready(load(), ON_CPU.devices)
    return each(earlyon.router(normalise, network, policy, size == 1), images, size)


def each(classify: Callable[[Tensor], object], images: Tensor, size: int) -> Case:
    """Some of the pictures, one batch after another: in every turn others, the same ones for every case. With the same
    ones again and again, all batches would have sizes that the libraries have prepared for."""
    draw = torch.Generator().manual_seed(0)

    def turn() -> float:
        chosen = images[torch.randperm(len(images), generator=draw)[: TURN[size]]]
        return timed(lambda: [classify(batch) for batch in chosen.split(size)])

    return turn


def main() -> None:
    """Fit, say what was fitted, measure all cases in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataDir", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--earlyon", action="store_true")
    arguments = parser.parse_args()
    if arguments.earlyon and not importlib.util.find_spec("earlyon"):
        parser.error("--earlyon: the package is not installed; pip install earlyon, or leave it out")
    model = load()
    odd, even = halves(arguments.dataDir)
    images = even.images
    macs = model.macs_to_exits
    policy = fitted(model, odd, macs[-1] / 2)
    found = routing.router(model, policy, ON_CPU)(images).figures(even.targets, macs)
    exits = ", ".join(map(str, policy.positions))
    print(
        f"{RUN.name}; {machine()}; median of {arguments.rounds}\n"
        f"policy fitted on one half of the test pictures, timed on the other\n"
        f"{amount(round(found['macs']))} of {amount(macs[-1])} multiply-adds ({found['macs'] / macs[-1]:.2f})\n"
        f"leave at exits {exits}: {', '.join(map(str, found['histogram']))}\n"
    )
    cases = {("policy", size): partial(routed, policy, images, size) for size in TURN}
    cases |= {("last exit", size): partial(last_exit, images, size) for size in TURN}
    if arguments.earlyon:
        cases |= {("earlyon", size): partial(by_earlyon, policy, images, size) for size in TURN}
    seconds = interleaved(cases, arguments.rounds)
    columns = {
        "": [name for name, _ in cases],
        "batch": [str(size) for _, size in cases],
        "img/s": [f"{TURN[size] / seconds[name, size]:.0f}" for name, size in cases],
        "times as fast as the last exit": [
            f"{seconds['last exit', size] / seconds[name, size]:.2f}" for name, size in cases
        ],
    }
    print(table(columns, words={""}))


if __name__ == "__main__":
    main()
