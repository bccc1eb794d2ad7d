"""Augmented batches against pictures augmented one at a time, in a single process; and how long a step waits for data.

python -m benchmarks.loader
"""

import itertools
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from benchmarks.cases import BATCH, NETWORK, noise, one_step, training
from benchmarks.step import OneByOne
from benchmarks.timing import Case, interleaved, machine, timed
from datasets.loaders import training_batches
from datasets.transforms import Augmentation
from training.plan import Plan

PICTURES = 20 * BATCH
ROUNDS = 9
STEPS = 30


def one_by_one() -> Case:
    """torchvision's transforms on PIL images."""
    loader = DataLoader(OneByOne(noise(PICTURES)), BATCH, shuffle=True)
    return partial(timed, lambda: [None for _ in loader])


def batched() -> Case:
    """This program's batches, without workers."""
    batches = training_batches(
        noise(PICTURES), Plan(PICTURES, BATCH, 10**6, seed=0, side=32, first_side=32).after(0), seed=0, workers=0,
        augmentation=Augmentation(pad=4, flip=True), pin=False,
    )  # fmt: skip
    return partial(timed, lambda: [None for _ in itertools.islice(batches, PICTURES // BATCH)])


class Stopwatch:
    """An iterator that adds up the seconds spent waiting for its items."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.items, self.waited = items, 0.0

    def __iter__(self) -> "Stopwatch":
        return self

    def __next__(self) -> Any:
        start = time.perf_counter()
        item = next(self.items)
        self.waited += time.perf_counter() - start
        return item


def waiting() -> float:
    """The part of the time of `STEPS` training steps that is spent waiting for batches, with two workers."""
    trainer, batches = training(NETWORK)
    one_step(trainer, batches)
    watch = Stopwatch(batches)
    seconds = timed(lambda: [one_step(trainer, watch) for _ in range(STEPS)])
    return watch.waited / seconds


def main() -> None:
    """Measure and print both."""
    seconds = interleaved({"one by one": one_by_one, "batched": batched}, ROUNDS)
    print(f"batches of {BATCH}, crop and flip, one process; {machine()}; median of {ROUNDS}\n")
    for name, value in seconds.items():
        print(f"{name:10}  {PICTURES / value:9,.0f} images/s")
    print(f"\nbatched over one by one: {seconds['one by one'] / seconds['batched']:.0f}")
    print(f"waiting for data, {NETWORK}: {100 * waiting():.2f} % of the time")


if __name__ == "__main__":
    main()
