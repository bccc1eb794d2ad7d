"""How much memory the processes of a run on one host hold together.

python -m benchmarks.copies --data CIFAR10 --dataDir data

Memory is the sum of the proportional set sizes that Linux tells (`/proc/PID/smaps_rollup`): a page that several
processes have is counted once. It is read when the processes of a small network have trained for some seconds.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SETTLED = 5.0  # seconds after the first save, which comes before the first step
NETWORK = "--depth 8 --nOutputs 1 --nGPU 0 --nThreads 0 --batchsize 32 --nEpochs 100000 --testEvery 100000"


def held(processes: int, options: list[str]) -> int:
    """Bytes that so many processes of one run hold."""
    with tempfile.TemporaryDirectory() as save:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [*launcher, "main.py", *NETWORK.split(), "--save", save, *options]
        run = subprocess.Popen(
            command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        while not list(Path(save).glob("*/latest.pt")):
            if run.poll() is not None:
                raise RuntimeError(f"torchrun ended: {run.stderr.read().decode()[-2000:]}")
            time.sleep(0.1)
        time.sleep(SETTLED)
        ranks = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True, check=True).stdout.split()
        found = sum(proportional(int(rank)) for rank in ranks)
        run.send_signal(signal.SIGTERM)
        run.communicate()
    return found


def proportional(process: int) -> int:
    """The proportional set size of a process in bytes."""
    return 1024 * int(re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text(), re.M)[1])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="CIFAR10")
    parser.add_argument("--dataDir", default="data")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    arguments = parser.parse_args()
    data = ["--data", arguments.data, "--dataDir", arguments.dataDir]
    for processes in arguments.processes:
        print(f"{processes} processes: {held(processes, data) / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
