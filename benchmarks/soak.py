"""Kill a training at random moments, resume it each time, and compare what it leaves with an uninterrupted run.

python -m benchmarks.soak                 # 200 kills, some ten minutes
python -m benchmarks.soak --kills 5000
python -m benchmarks.soak --kills 10 --processes 2    # one of two processes each time, which torchrun starts again

The run saves its state at every step, so that many kills fall into a save; one process is resumed with another number
of loader workers each time. Every finished run must hold the same exit files, byte for byte, and the same log; after
the last, a new run begins.
"""

import argparse
import contextlib
import csv
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path

from tqdm import tqdm

from formats.log_file import TIMES

OPTIONS = "--data DIGITS --depth 8 --nOutputs 2 --trainSize 320 --batchsize 16 --nEpochs 4 --dropout 0.2 --nGPU 0"
FOLDER = "DIGITS-AuxResNet-8-2-dropout-0.2"
LONGEST = 1.2  # seconds that a run lives at most, from its first save, before it is killed
STARTING = 0.25  # the part of the kills for which these count from its start


def train(*options: str) -> None:
    """Run main.py with these options, silent, in this process."""
    import main

    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        main.main([*OPTIONS.split(), "--saveEvery", "0", *options])


def forks() -> BaseContext:
    """New processes that have imported PyTorch already, from a server that has not used it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["main", "training.run"])
    return context


def await_moment(
    save: Path, rng: random.Random, ended: Callable[[], bool], started: Callable[[], object] = lambda: True
) -> None:
    """Wait for the moment of a kill, or until what is to be killed has ended."""
    before, starting = saved(save), rng.random() < STARTING
    while not ended() and not (started() and (starting or saved(save) != before)):
        time.sleep(0.02)
    moment = time.monotonic() + rng.uniform(0, LONGEST)
    while not ended() and time.monotonic() < moment:
        time.sleep(0.005)


def alone(context: BaseContext, save: Path, rng: random.Random, kills: int) -> Iterator[None]:
    """Train in one process, which is started again until it has finished; yields whenever it has been killed."""
    for life in itertools.count():
        options = ["--save", str(save), "--resume", "auto", "--nThreads", str(rng.choice((0, 1, 2)))]
        process = context.Process(target=train, args=options)
        process.start()
        if life < kills:
            await_moment(save, rng, lambda process=process: process.exitcode is not None)
        else:
            process.join(600)
        if process.exitcode is not None:
            break
        process.kill()
        while Path(f"/proc/{process.pid}").exists():  # `join` would wait for the workers, too, which notice it later
            time.sleep(0.005)
        yield
    if process.exitcode:
        raise RuntimeError(f"the run in {save} ended with status {process.exitcode}")


def under_torchrun(processes: int, save: Path, rng: random.Random, kills: int) -> Iterator[None]:
    """Train in several processes, which torchrun starts again until they have finished; yields whenever one of them has
    been killed."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    options = ["--save", str(save), "--resume", "auto", "--nThreads", str(rng.choice((0, 1, 2))), "--saveEvery", "0"]
    command = [*launcher, "--max-restarts", str(kills), "main.py", *OPTIONS.split(), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        for _ in range(kills):
            await_moment(save, rng, lambda: run.poll() is not None, lambda: children(run))
            alive = children(run)
            if run.poll() is not None or not alive:
                break
            os.kill(rng.choice(alive), signal.SIGKILL)
            yield
        if run.wait(600):
            raise RuntimeError(f"the run in {save} ended with status {run.returncode}")


def saved(save: Path) -> int:
    """The time of the last save, in nanoseconds; 0 if there is none."""
    try:
        return (save / FOLDER / "latest.pt").stat().st_mtime_ns
    except FileNotFoundError:  # or between the two renames of a save
        return 0


def children(process: subprocess.Popen) -> list[int]:
    """The processes that a process has started and that run."""
    found = subprocess.run(["pgrep", "-r", "RSD", "-P", str(process.pid)], capture_output=True, text=True)
    return [int(child) for child in found.stdout.split()]


def outcome(save: Path) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """The bytes of every exit file, and the rows of the log without their times."""
    files = {path.name: path.read_bytes() for path in sorted((save / FOLDER).glob("exit-*.safetensors"))}
    with (save / FOLDER / "log.csv").open() as file:
        rows = [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]
    return files, rows


def soak(root: Path, kills: int, seed: int, processes: int = 1) -> int:
    """Kill at least so many times; returns how many runs were finished and found equal to the uninterrupted one.

    Raises AssertionError where one is not.
    """
    rng = random.Random(seed)
    run = partial(alone, forks()) if processes == 1 else partial(under_torchrun, processes)
    assert not list(run(root / "uninterrupted", rng, 0))
    expected = outcome(root / "uninterrupted")
    assert len(expected[0]) == 2
    assert len(expected[1]) == 4
    done = finished = 0
    with tqdm(total=kills, unit="kill", disable=None) as bar:
        while done < kills:
            save = root / str(finished)
            for _ in run(save, rng, kills - done):
                done += 1
                bar.update()
            assert outcome(save) == expected, f"the run in {save} differs from the uninterrupted one"
            finished += 1
    return finished


def main() -> None:
    """Soak in a temporary folder and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"  # says at the end what killed processes left behind
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        finished = soak(Path(folder), arguments.kills, arguments.seed, arguments.processes)
    print(f"{arguments.kills} kills in {time.monotonic() - start:.0f} s; {finished} runs finished, all equal")


if __name__ == "__main__":
    main()
