"""What the margins of random crops do to batch norm: a network's errors with other statistics than its own.

python -m benchmarks.margins CIFAR10-AuxResNet-26-2 --dataDir data

The run must have held pictures out (`--valSize`), because these are what the errors are of. Statistics are measured on
training pictures that are mirrored at random and cropped as the rows say.
"""

import argparse
import copy
from pathlib import Path

import opts
from datasets import catalog, splits
from datasets.loaders import varied_sample
from datasets.sizing import PADDINGS
from datasets.transforms import Augmentation, Normalise
from inference import evaluation, saved
from models.multiexit import MultiExit
from options import stored
from system.devices import CPU

BATCHES, BATCH = 50, 128  # on which statistics are measured


def errors(network: MultiExit, data: splits.TrainingData, crops: Augmentation | None) -> tuple[float, ...]:
    """The validation error of each exit in percent, with the statistics of pictures varied so (None: its own)."""
    normalise, measured = Normalise(data.mean, data.std), copy.deepcopy(network)
    if crops:
        sample = varied_sample(data.train, BATCHES * BATCH, 0, crops)
        measured = evaluation.measure_statistics(measured, normalise, sample.split(BATCH), CPU)
    model, equal_weights = evaluation.ready(measured, normalise, [CPU]), (1.0,) * len(network.exits)
    return evaluation.evaluate(model, evaluation.batches(data.evaluated), equal_weights, CPU).errors


def main() -> None:
    """Print a row for each kind of statistics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--dataDir", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    how = stored.recorded(arguments.run, opts.MAIN)
    if how["data"] not in catalog.NAMES:
        parser.error(f"{arguments.run} is of a folder of pictures, whose margins are not all of one kind; give another")
    if not how["valSize"]:
        parser.error(f"{arguments.run} held no pictures out; give a run with --valSize")
    network = saved.load(saved.find_files(str(arguments.run), None, ())).network
    data = splits.for_training(
        catalog.find(how["data"], arguments.dataDir, how["svhnExtra"]), how["trainSize"], how["valSize"]
    )
    cases = {f"as trained, {how['padding']}": None, "not cropped": Augmentation(flip=True)}
    for padding in PADDINGS:
        cases[f"cropped, {padding}"] = Augmentation(data.pad, padding, flip=True, fill=data.mean)
    print(f"{'statistics':20}  {'  '.join(f'exit {position:2}' for position in network.exits)}")
    for name, crops in cases.items():
        print(f"{name:20}  {'  '.join(f'{error:7.2f}' for error in errors(network, data, crops))}", flush=True)


if __name__ == "__main__":
    main()
