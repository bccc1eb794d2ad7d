"""How long a user waits: for --help, and from the command line to the first step of a training.

python -m benchmarks.startup
"""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.timing import machine, timed

PROJECT = Path(__file__).parent.parent
ROUNDS = 7
IMPORTS = "import torch, torchvision, sklearn.datasets"
FIRST_STEP = """
import os, sys, main
from training import trainer
trainer.Trainer.step = lambda *_: os._exit(0)
main.main(['--data', 'DIGITS', '--save', sys.argv[1]])
"""


def main() -> None:
    """Time the commands in turn and print their medians."""
    commands = {
        "imports": ["-c", IMPORTS],
        "main.py --data DIGITS, to the first step": ["-c", FIRST_STEP],
        "main.py --help": ["main.py", "--help"],
        "test.py --help": ["test.py", "--help"],
    }
    seconds = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                whole = [sys.executable, *command, *([folder] if command[1] == FIRST_STEP else [])]
                quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                run = partial(subprocess.run, whole, cwd=PROJECT, check=True, **quiet)
                seconds[name].append(timed(run))
    print(f"{machine()}; median of {ROUNDS}\n")
    for name, values in seconds.items():
        print(f"{name:41}  {median(values):.2f} s")
    first_step = median(seconds["main.py --data DIGITS, to the first step"])
    print(f"\nfirst step over imports: {first_step / median(seconds['imports']):.2f}")


if __name__ == "__main__":
    main()
