"""Two processes of one thread each against one process of two threads, training on the same batches, on the CPU.

python -m benchmarks.scaling [NETWORK]

Prints the ratio of their images/s, how many bytes the processes tell each other in a step, and what part of the step
that would take by itself. Other settings of DistributedDataParallel made no difference on two cores of an EPYC: with
gradients that are no views of its buckets, buckets of 1 or 100 MB, or a static graph, images/s were 1.00 to 1.02 times
as many (AuxResNet-56-5, median of 11 steps in turn, which differ by as much).
"""

import argparse
import multiprocessing
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import torch

from benchmarks.cases import BATCH, NETWORK, one_step, training
from benchmarks.timing import Case, interleaved, machine, timed
from system import world

PROCESSES = 2
JOINED = ExitStack()  # nobody closes it: processes are joined for as long as they live

Builder = Callable[[str], Case]


def step(name: str) -> Case:
    """A training step of this process, or its share of one."""
    trainer, batches = training(name, "--nThreads", "0")
    return partial(timed, lambda: one_step(trainer, batches))


def message(name: str) -> Case:
    """An all-reduce of as many numbers as the processes tell each other in a step, by itself."""
    numbers = torch.zeros(told(name))
    return partial(timed, lambda: world.total(numbers))


def told(name: str) -> int:
    """How many float32 numbers processes tell each other in a step: gradients, batch norm statistics, and the loss and
    the wrong answers of each exit."""
    trainer, _ = training(name, "--nThreads", "0")
    gradients = sum(parameter.numel() for parameter in trainer.network.parameters() if parameter.requires_grad)
    return gradients + sum(buffer.numel() for buffer in trainer.statistics.values()) + 1 + len(trainer.network.exits)


def alone(build: Builder, name: str) -> Case:
    """A case of one process, with as many threads as the others have together."""
    torch.set_num_threads(PROCESSES)
    return build(name)


def together(build: Builder, name: str) -> Case:
    """A case of several processes of one thread each, timed in this one, the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for rank in range(1, PROCESSES):
        process = multiprocessing.get_context("spawn").Process(target=_follow, args=(rank, port, build, name))
        process.daemon = True  # it ends with this one
        process.start()
    return _at_once(0, port, build, name)


def _follow(*place: object) -> None:
    """In another process: take part whenever the first one does."""
    case = _at_once(*place)
    while True:
        case()


def _at_once(rank: int, port: int, build: Builder, name: str) -> Case:
    """The case, begun by all processes at once, which this one joins as torchrun would have it."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": PROCESSES, "LOCAL_WORLD_SIZE": PROCESSES}
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "scaling"}
    os.environ.update({key: str(value) for key, value in {**place, **where}.items()})
    torch.set_num_threads(1)
    JOINED.enter_context(world.joined())
    case = build(name)

    def begun() -> float:
        world.highest(0)
        return case()

    return begun


def main() -> None:
    """Measure, and print three lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", nargs="?", default=NETWORK)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    cases = {
        "alone": partial(alone, step, options.network),
        "together": partial(together, step, options.network),
        "telling": partial(together, message, options.network),
    }
    seconds = interleaved(cases, options.rounds)
    print(f"{options.network}, batch {BATCH}, float32; {machine()}; medians of {options.rounds} steps in turn")
    one, several = (BATCH / seconds[case] for case in ("alone", "together"))
    print(f"1 process × {PROCESSES} threads: {one:.0f} images/s")
    print(f"{PROCESSES} processes × 1 thread: {several:.0f} images/s, {several / one:.2f} times as many")
    share = seconds["telling"] / seconds["together"]
    megabytes = 4 * told(options.network) / 1e6
    print(f"told in a step: {megabytes:.2f} MB, by itself {1000 * seconds['telling']:.1f} ms, {share:.1%} of the step")


if __name__ == "__main__":
    main()
