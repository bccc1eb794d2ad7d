"""What `--shareGradInput true` saves and costs, batch 128, float32, on the CPU.

python -m benchmarks.memory                    # AuxResNet-56-5
python -m benchmarks.memory AuxResNet-26-2/10 --processes 1 --rounds 2  # a quarter of a minute for each step

Memory is the high-water mark of the process during a step over what it held before that step, in a process that has
done one step on two pictures, so that libraries and optimizer are in place: the median of several processes, since the
C library's heap comes out different each time. Time is the median of steps in turn.
"""

import argparse
import multiprocessing
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.cases import BATCH, NETWORK, one_step, ours, small, training
from benchmarks.timing import interleaved, machine

SETTINGS = {"kept": (), "recomputed": ("--shareGradInput", "true")}


def peak(name: str, options: tuple[str, ...]) -> int:
    """Bytes that a step needs on top of what the process holds before it."""
    trainer, batches = training(name, "--nThreads", "0", *options)
    one_step(trainer, iter([small(next(batches))]))
    Path("/proc/self/clear_refs").write_text("5")  # forget the high-water mark
    before = _status("VmRSS")
    one_step(trainer, batches)
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main() -> None:
    """Measure both settings and print them with their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", nargs="?", default=NETWORK)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--processes", type=int, default=5, help="in which memory is measured")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        peaks = {
            name: [pool.apply(peak, (arguments.network, options)) for _ in range(arguments.processes)]
            for name, options in SETTINGS.items()
        }
    memory = {name: median(values) for name, values in peaks.items()}
    cases = {name: partial(ours, arguments.network, *options) for name, options in SETTINGS.items()}
    seconds = interleaved(cases, arguments.rounds, warm_up=1)
    print(f"{arguments.network}, batch {BATCH}, float32; {machine()}; median of {arguments.rounds}\n")
    print("activations  peak MB  ms a step")
    for name in SETTINGS:
        print(f"{name:11}  {memory[name] / 1e6:7.0f}  {1000 * seconds[name]:9.0f}")
    print(f"\nmemory: {memory['recomputed'] / memory['kept']:.2f}, ", end="")
    print(f"time: {seconds['recomputed'] / seconds['kept']:.2f}")


if __name__ == "__main__":
    main()
