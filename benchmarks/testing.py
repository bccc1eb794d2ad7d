"""Testing every exit of a network: this program's one pass against each exit's model by itself, the plain way.

python -m benchmarks.testing                    # AuxResNet-56-5
python -m benchmarks.testing AuxResNet-26-2
python -m benchmarks.testing AuxResNet-26-2/10 --pictures 500 --rounds 3

The plain way is that of the usual script: a loader that prepares one picture at a time, eager float32 in NCHW. Reading
the files and importing PyTorch are not counted. The weights are random, as they do not matter for speed.
"""

import argparse
from collections.abc import Sequence
from functools import partial

import torch
from torch.utils.data import DataLoader

from benchmarks.cases import BATCH, MEAN, NETWORK, STD, noise
from benchmarks.step import OneByOne
from benchmarks.timing import Case, interleaved, machine, timed
from datasets.sizing import SIDE
from datasets.transforms import Normalise
from inference import evaluation
from inference.latency import latencies
from models import names
from models.multiexit import MultiExit
from models.networks import build
from system.devices import CPU
from system.machine import ON_CPU

PICTURES = 10_000


def standalone(name: str) -> list[MultiExit]:
    """The model of each exit."""
    configuration = names.parse(name)
    return [build(configuration, 10, (position,)).eval() for position in configuration.exits]


def plain(name: str, pictures: int) -> Case:
    """Each exit's model in turn, as the usual script tests a model."""
    models = standalone(name)
    loader = DataLoader(OneByOne(noise(pictures), augment=False), BATCH, num_workers=2)

    @torch.no_grad()
    def run() -> None:
        for model in models:
            sum((model(images)[-1].argmax(1) != targets).sum().item() for images, targets in loader)

    return partial(timed, run)


def ours(networks: Sequence[MultiExit], pictures: int, dtype: torch.dtype | None = None) -> Case:
    """Every network in turn, as `test.py` tests one, in `dtype` (None: float32)."""
    noisy = noise(pictures)

    def run() -> None:
        for network in networks:
            model, equal_weights = evaluation.ready(network, Normalise(MEAN, STD), [CPU]), (1.0,) * len(network.exits)
            evaluation.evaluate(model, evaluation.batches(noisy), equal_weights, CPU, dtype)

    return partial(timed, run)


def in_turn(name: str, pictures: int) -> Case:
    """Each exit's model by itself: `test.py --exit P` for every P."""
    return ours(standalone(name), pictures)


def one_pass(name: str, pictures: int, dtype: torch.dtype | None = None) -> Case:
    """All exits in one pass over the trunk: `test.py --exit all`."""
    return ours([build(names.parse(name), 10)], pictures, dtype)


def main() -> None:
    """Measure all cases in turn, then the latency of each exit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", nargs="?", default=NETWORK)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    name, pictures = arguments.network, arguments.pictures
    cases = {
        "the plain way": partial(plain, name, pictures),
        "each exit in turn": partial(in_turn, name, pictures),
        "all exits": partial(one_pass, name, pictures),
        "all exits, bf16": partial(one_pass, name, pictures, torch.bfloat16),
    }
    seconds = interleaved(cases, arguments.rounds, warm_up=1)
    print(f"{name}, {pictures:,} pictures; {machine()}; median of {arguments.rounds}\n")
    for case, value in seconds.items():
        print(f"{case:17}  {value:6.1f} s  {seconds['the plain way'] / value:5.2f} times as fast as the plain way")
    print("\none picture at a time, each exit's model by itself:")
    models = standalone(name)
    quick = [evaluation.ready(model, Normalise(MEAN, STD), [CPU]) for model in models]
    for model, one in zip(models, latencies(quick, SIDE, ON_CPU), strict=True):
        print(f"exit {model.exits[0]:4}  {one.median:6.2f} ms")


if __name__ == "__main__":
    main()
