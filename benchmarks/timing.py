"""Fair comparisons: cases in processes of their own, run in turn, A B A B, and compared by their medians.

A machine's speed may change by a factor of two within the hour; cases that take turns see the same of it.
"""

import multiprocessing
import platform
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median

import torch

Case = Callable[[], float]  # runs once and returns seconds


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(
    builders: Mapping[Hashable, Callable[[], Case]], rounds: int, warm_up: int = 2
) -> dict[Hashable, float]:
    """The median seconds of each case over `rounds` turns, after `warm_up` turns that do not count.

    A builder is called in a new process, so that no case inherits the memory or the settings of another.
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[Hashable, Connection] = {}
    processes: list[BaseProcess] = []
    seconds = {name: [] for name in builders}
    try:
        for name, builder in builders.items():
            pipes[name], other_end = context.Pipe()
            processes.append(context.Process(target=_serve, args=(builder, other_end)))
            processes[-1].start()
            other_end.close()  # so that nothing is waited for from a process that has died
            _answer(name, pipes[name])  # one at a time: building is work, too
        for turn in range(warm_up + rounds):
            for name, pipe in pipes.items():
                pipe.send("run")
                result = _answer(name, pipe)
                if turn >= warm_up:
                    seconds[name].append(result)
    finally:
        for pipe in pipes.values():
            with suppress(OSError):  # of a process that has died
                pipe.send("stop")
        for process in processes:  # so that what is measured next has the machine to itself
            process.join()
    return {name: median(results) for name, results in seconds.items()}


def _answer(name: Hashable, pipe: Connection) -> object:
    """What a case says next. Ends the program where its process has ended, which has said why."""
    try:
        return pipe.recv()
    except (EOFError, OSError):
        sys.exit(f"the case {name} ended before it was measured")


def _serve(builder: Callable[[], Case], pipe: Connection) -> None:
    case = builder()
    pipe.send("ready")
    while pipe.recv() == "run":
        pipe.send(case())


def machine() -> str:
    """The processor, its cores in use, and the version of PyTorch, in one line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{model}, {torch.get_num_threads()} cores, PyTorch {torch.__version__}"
