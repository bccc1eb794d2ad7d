"""Whether a long run stays as it began: memory, open files and time of each of a thousand epochs.

python -m benchmarks.endurance                          # 1,000 epochs of a tiny network, five minutes
python -m benchmarks.endurance --epochs 100 --out few.png

Looks at a real run from outside, once a second, and draws what it saw. Time is that of the processor, because other
work on the machine changes that of the clock.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tqdm import tqdm

from benchmarks.timing import machine

OPTIONS = "--data DIGITS --depth 8 --nOutputs 2 --trainSize 64 --batchsize 32 --nGPU 0 --nThreads 1 --schedule step"
RUN = "DIGITS-AuxResNet-8-2"
PROCESSES = 2  # the run and its loader worker
PAGE, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")  # bytes; a second


class Seen(NamedTuple):
    """What a run was like at a moment."""

    seconds: float  # of the processor, in all
    epoch: int
    megabytes: float  # of memory, with those of its workers
    files: int  # open
    processes: int


def look(process: int, log: Path) -> Seen:
    """The run of this process now."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    pages = [int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in (process, *children)]
    epoch = len(log.read_text().splitlines()) - 1 if log.exists() else 0
    files = len(list(Path(f"/proc/{process}/fd").iterdir()))
    return Seen(sum(map(busy, (process, *children))), epoch, sum(pages) * PAGE / 1e6, files, len(pages))


def busy(process: int | str) -> float:
    """The seconds of the processor that a process has taken."""
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / TICKS


def watch(epochs: int, save: Path) -> list[Seen]:
    """A run of so many epochs, looked at every second."""
    command = [sys.executable, "main.py", *OPTIONS.split(), "--nEpochs", str(epochs), "--save", str(save)]
    seen = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run, tqdm(total=epochs, unit="epoch") as bar:
        while run.poll() is None:
            time.sleep(1)
            try:
                seen.append(look(run.pid, save / RUN / "log.csv"))
            except (FileNotFoundError, ProcessLookupError):  # a worker, or the run, is just ending
                continue
            bar.update(seen[-1].epoch - bar.n)
    if run.returncode:
        raise RuntimeError(f"the run ended with status {run.returncode}")
    return [one for one in seen if one.epoch > 0 and one.processes == PROCESSES and one.megabytes]


def paces(seen: list[Seen], parts: int) -> list[float]:
    """The seconds of an epoch in each of so many equal parts of the run."""
    found = []
    for part in range(parts):
        some = seen[len(seen) * part // parts : len(seen) * (part + 1) // parts + 1]
        found.append((some[-1].seconds - some[0].seconds) / max(1, some[-1].epoch - some[0].epoch))
    return found


def draw(seen: list[Seen], path: Path) -> None:
    """Memory, files and pace over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    memory, files, pace = figure.subplots(1, 3)
    epochs, parts = [one.epoch for one in seen], 50
    memory.plot(epochs, [one.megabytes for one in seen])
    files.plot(epochs, [one.files for one in seen])
    marks = [seen[len(seen) * (2 * part + 1) // (2 * parts)].epoch for part in range(parts)]
    pace.plot(marks, paces(seen, parts))
    titles = {memory: "memory, MB", files: "open files", pace: "processor seconds an epoch"}
    for axes, title in titles.items():
        axes.set(title=title, xlabel="epoch", ylim=(0, 1.15 * axes.get_ylim()[1]))
    figure.savefig(path, dpi=100)


def main() -> None:
    """Watch a run, draw, and say how its last tenth differs from its second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("docs/endurance.png"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen = watch(arguments.epochs, Path(folder))
    draw(seen, arguments.out)
    early, late = seen[len(seen) // 10 : len(seen) // 5], seen[-len(seen) // 10 :]
    print(f"{arguments.epochs} epochs in {seen[-1].seconds:.0f} s of the processor; {machine()}")
    for name in ("megabytes", "files", "processes"):
        first, last = (median(getattr(one, name) for one in part) for part in (early, late))
        print(f"{name:10}  {first:8,.0f} in the second tenth  {last:8,.0f} in the last")
    tenths = paces(seen, 10)
    print(f"{'s an epoch':10}  {tenths[1]:8.2f} in the second tenth  {tenths[-1]:8.2f} in the last")


if __name__ == "__main__":
    main()
