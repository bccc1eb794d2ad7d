"""Kill a training at random moments, resume it each time, and compare what it leaves with an uninterrupted run.

python -m benchmarks.soak                 # 200 kills, some five minutes
python -m benchmarks.soak --kills 5000

The run saves its state at every step, so that many kills fall into a save, and is resumed with another number of
loader workers each time. Every finished run must hold the same exit files, byte for byte, and the same log; after the
last, a new run begins.
"""

import argparse
import contextlib
import csv
import multiprocessing
import os
import random
import tempfile
import time
from multiprocessing.context import BaseContext
from pathlib import Path

from tqdm import tqdm

from checkpoints import TIMES

OPTIONS = "--data DIGITS --depth 8 --nOutputs 2 --trainSize 320 --batchsize 16 --nEpochs 4 --dropout 0.2 --nGPU 0"
FOLDER = "DIGITS-AuxResNet-8-2-dropout-0.2"
LONGEST = 1.2  # seconds that a run lives before it is killed


def train(*options: str) -> None:
    """Run main.py with these options, silent, in this process."""
    import main

    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        main.main([*OPTIONS.split(), "--saveEvery", "0", *options])


def processes() -> BaseContext:
    """New processes that have imported PyTorch already, from a server that has not used it."""
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"  # says at the end what killed processes left behind
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["main", "training.run"])
    return context


def killed(context: BaseContext, save: Path, workers: int, seconds: float) -> bool:
    """Start or resume the run, SIGKILL it after so many seconds; whether it was killed before it was finished."""
    begun = any((save / FOLDER / name).exists() for name in ("latest.pt", "previous.pt"))
    options = ["--save", str(save), "--nThreads", str(workers), *(["--resume"] if begun else [])]
    process = context.Process(target=train, args=options)
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        while Path(f"/proc/{process.pid}").exists():  # `join` would wait for the workers, too, which notice it later
            time.sleep(0.005)
        return True
    if process.exitcode:
        raise RuntimeError(f"the run in {save} ended with status {process.exitcode}")
    return False


def outcome(save: Path) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """The bytes of every exit file, and the rows of the log without their times."""
    files = {path.name: path.read_bytes() for path in sorted((save / FOLDER).glob("exit-*.safetensors"))}
    with (save / FOLDER / "log.csv").open() as file:
        rows = [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]
    return files, rows


def soak(root: Path, kills: int, seed: int) -> int:
    """Kill at least so many times; returns how many runs were finished and found equal to the uninterrupted one.

    Raises AssertionError where one is not.
    """
    context, rng = processes(), random.Random(seed)
    assert not killed(context, root / "uninterrupted", 0, 600)
    expected = outcome(root / "uninterrupted")
    assert len(expected[0]) == 2
    assert len(expected[1]) == 4
    done = finished = 0
    bar = tqdm(total=kills, unit="kill", disable=None)
    while True:
        save, life = root / str(finished), rng.uniform(0, LONGEST) if done < kills else 600
        if killed(context, save, rng.choice((0, 1, 2)), life):
            done += 1
            bar.update()
            continue
        assert outcome(save) == expected, f"the run in {save} differs from the uninterrupted one"
        finished += 1
        if done >= kills:
            bar.close()
            return finished


def main() -> None:
    """Soak in a temporary folder and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        finished = soak(Path(folder), arguments.kills, arguments.seed)
    print(f"{arguments.kills} kills in {time.monotonic() - start:.0f} s; {finished} runs finished, all equal")


if __name__ == "__main__":
    main()
