"""predict.py on thousands of PNG files: reading and classifying them against classifying alone.

python -m benchmarks.predicting

The files are pictures of noise, of the size that the network takes, which decode no faster than real ones. They are
decoded by as many processes as there are processors, whatever OMP_NUM_THREADS leaves the network.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.exported import EXIT
from benchmarks.timing import Case, interleaved, machine, timed
from datasets.sizing import Sizing
from formats import exit_file
from inference import prediction, saved
from system.machine import ON_CPU

PICTURES = 2000


def written(folder: Path, side: int) -> list[str]:
    """The paths of as many PNG files of side×side pixels, written into a folder."""
    rng = np.random.default_rng(0)
    paths = [str(folder / f"{index}.png") for index in range(PICTURES)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return paths


def case(what: str, exit: Path, paths: list[str]) -> Case:
    """`reading` the files, `classifying` the same pictures in memory, or `both`, as predict.py does it."""
    model = prediction.of_saved(saved.load({exit_file.position_of(exit): exit}), ON_CPU)
    images = [torch.from_numpy(np.stack(pictures)) for _, pictures in prediction.decoded_ahead(paths, model.sizing)]
    work = {
        "reading": lambda: list(prediction.decoded_ahead(paths, model.sizing)),
        "classifying": lambda: list(map(model.answers, images)),
        "both": lambda: list(prediction.answers(model, paths, 1)),
    }
    return partial(timed, work[what])


def main() -> None:
    """Measure all three in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exit", nargs="?", type=Path, default=EXIT)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = written(Path(folder), Sizing.of(exit_file.read_header(arguments.exit)).side)
        cases = {what: partial(case, what, arguments.exit, paths) for what in ("reading", "classifying", "both")}
        seconds = interleaved(cases, arguments.rounds, warm_up=1)
    print(f"{arguments.exit}, {PICTURES:,} PNG files; {machine()}; median of {arguments.rounds}\n")
    for what, value in seconds.items():
        print(f"{what:12}  {PICTURES / value:7,.0f} images/s")
    print(f"\nboth over classifying alone: {seconds['classifying'] / seconds['both']:.2f}")


if __name__ == "__main__":
    main()
