"""Fit a policy, by which easy pictures leave early, on pictures that the network was not trained on.

python main.py --data DIGITS --nOutputs 4 --valSize 300               # holds out 300 pictures to calibrate on
python calibrate.py DIGITS AuxResNet-26-4 --budgetMACs 35M            # multiply-adds for one picture, on average
python calibrate.py DIGITS AuxResNet-26-4 --budgetMs 2                # milliseconds on this machine, one by one
python calibrate.py DIGITS AuxResNet-26-4 --maxErrorIncrease 5        # percentage points above the last exit, assured
python calibrate.py DIGITS AuxResNet-26-4 --budgetMACs 35M --protocol msdnet    # shares by a geometric law
python calibrate.py CIFAR10 AuxResNet-56-5 --budgetMACs 60M --heldOut path/to/pictures
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import opts
from datasets import catalog
from models import names
from options import rules
from reports import destination
from system.errors import UserError, one_line_errors
from system.files import check_target, real, write

if TYPE_CHECKING:
    from datasets.pictures import Pictures
    from inference.calibration import Answered
    from inference.saved import SavedModel
    from system.machine import Machine

FEWEST = 50  # held-out pictures
TOLERANCE = 1.0  # percentage points by which 16-bit arithmetic may move an error


def main(argv: Sequence[str]) -> None:
    """Find the network and the held-out pictures, fit the policy, write it with its sweep, print."""
    options = opts.CALIBRATE.parsed(argv)
    folder = names.folder_called(catalog.label(options.data), options.model)

    from inference import calibration, policies, saved, sweeping  # import PyTorch, which mistakes need not wait for
    from reports import adaptive, tables
    from system import devices, machine

    model = saved.find(options.model, folder, saved.LEARNT, options.save)
    check_choice(options, model)
    out = out_folder(options, model.folder)
    devices.compute_in(options.cpuThreads)
    runs_on, macs = machine.choose(options.nGPU, options.precision), model.macs_to_exits
    costs = milliseconds(model, runs_on) if options.budgetMs else macs
    goal = calibration.Goal(*rules.goal(options), options.confidence, options.protocol)
    calibration.check_reach(goal, costs)
    held = ask(options, model, held_out(options, model), runs_on)
    policy = calibration.make_policy(goal, held, model.network, macs, costs)
    rows = sweeping.sweep(held, policy, macs)
    title = f"{model.header['name']}, {held.dataset} pictures"
    write(out / destination.POLICY, policies.as_json(policy))
    write(out / destination.SWEEP, tables.as_csv(rows))
    try:
        write(out / destination.PLOT, adaptive.draw(title, rows, policy.macs, policy.error))
    finally:  # the policy is there, too, where it cannot be drawn
        print(adaptive.describe(rows, policy.temperatures, policy.thresholds, policy.histogram))
        print(f"\n{adaptive.verdict(rows, policy.macs, policy.error, policy.pictures, policy.dataset)}")
    print(f"written: {destination.POLICY}, {destination.SWEEP} and {destination.PLOT} in {out}/")


def check_choice(options: Namespace, model: "SavedModel") -> None:
    """Raise UserError where there are no two exits to choose from, or the network is one of another data set."""
    if len(model.files) < 2:
        (file,) = model.files.values()
        raise UserError(
            f"{file} is one exit only, which takes every picture; give the folder of a run in which two or more learnt"
        )
    trained_on = model.header["dataset"]
    if options.data in catalog.NAMES and options.data != trained_on:
        raise UserError(f"{model.folder}/ was trained on {trained_on}, not on {options.data}; give {trained_on}")


def out_folder(options: Namespace, run: Path) -> Path:
    """The folder to write into, which is that of the run, unless the options say otherwise. Raises UserError where it
    is none, or cannot be written into."""
    out = Path(options.out or run)
    if not out.is_dir():
        raise UserError(f"--out {out} is no folder; make it, or drop --out, to write into {run}/")
    if destination.is_kept(out) and not out.samefile(run):
        raise UserError(
            f"--out {out} is the folder of another run, or a bundle; give another, or drop --out, to write into {run}/"
        )
    for name in destination.CALIBRATED:
        check_target(out / name)
    return out


def held_out(options: Namespace, model: "SavedModel") -> "Pictures":
    """The pictures to calibrate on. Raises UserError where there are none, too few, or where they have other classes
    than the network."""
    pictures = of_folder(options, model) if options.heldOut else of_run(options, model)
    if len(pictures) < FEWEST:
        raise UserError(
            f"of held-out pictures there are {len(pictures)}, too few to calibrate on; give --heldOut with {FEWEST} or "
            "more, or train with a larger --valSize"
        )
    return pictures


def of_folder(options: Namespace, model: "SavedModel") -> "Pictures":
    """The pictures of --heldOut."""
    from datasets import splits
    from inference import asking

    check_unseen(options)
    pictures = splits.of_folder(Path(options.heldOut), model.sizing)
    asking.check_same_classes(model, pictures, options.heldOut)
    return pictures


def of_run(options: Namespace, model: "SavedModel") -> "Pictures":
    """The pictures that the run held out. Raises UserError where it held none out, or others."""
    from datasets import identity, splits
    from inference import asking

    size = model.options.get("valSize")
    if not size:
        raise UserError(
            f"{model.folder}/ was trained without held-out pictures; train with --valSize N, or give "
            "--heldOut with a folder of pictures that were neither trained on nor are test pictures"
        )
    found = catalog.find(options.data, Path(options.dataDir), model.svhn_extra, model.sizing, model.padding)
    pictures = splits.held_out(found, size)
    asking.check_same_classes(model, pictures, options.data)
    digest = identity.digest(pictures)
    if model.header.get("heldOut", digest) != digest:
        raise UserError(
            f"these are not the pictures that were held out: {options.data} has others now, or other names of files, "
            "or another version of Pillow or of this program decodes them; check --dataDir, bring them back, or give "
            "--heldOut"
        )
    return pictures


def check_unseen(options: Namespace) -> None:
    """Raise UserError where --heldOut is the folder that a run is trained on, or tested on, or has it in it."""
    from datasets import folder

    found, held = catalog.find(options.data, Path(options.dataDir)), Path(options.heldOut)
    for split in ("train", "test") if found.in_folders else ():
        seen = folder.split_folder(found.folder, split)
        if seen and real(seen) in (real(held), real(held / "val")):
            raise UserError(
                f"--heldOut {held} has the pictures of {seen}, which are for training and testing; give a folder with "
                "others"
            )


def ask(options: Namespace, model: "SavedModel", pictures: "Pictures", runs_on: "Machine") -> "Answered":
    """What the exits say of the pictures. Raises UserError where these cannot be those that the run held out."""
    from inference import asking
    from inference.calibration import Answered

    logits, targets = asking.collect(model, pictures, runs_on)
    where = catalog.label(options.heldOut) if options.heldOut else f"{model.header['dataset']} validation"
    held = Answered([z.cpu() for z in logits], targets.cpu(), where)
    if not options.heldOut and "heldOut" not in model.header:  # of an older version: nothing better is known
        check_split(held, model)
    return held


def milliseconds(model: "SavedModel", runs_on: "Machine") -> list[float]:
    """How many milliseconds the standalone model of each exit takes for one picture, in the median."""
    from inference import asking, latency, saved

    exits = [asking.ready(saved.standalone(model, position), [runs_on.device]) for position in model.files]
    return [one.median for one in latency.latencies(exits, model.sizing.side, runs_on)]


def check_split(held: "Answered", model: "SavedModel") -> None:
    """Raise UserError where the last exit's error is not that which the run had on its held-out pictures."""
    from models import metrics

    header, found = model.header, metrics.top_error(held.logits[-1], held.targets)
    if header["errorOn"] == "validation" and abs(found - header["error"]) > TOLERANCE:
        raise UserError(
            f"the last exit has an error of {found:.2f} % on the held-out pictures, and had {header['error']:.2f} % in "
            "training: these are not the pictures that were held out; check --dataDir, or give --heldOut"
        )


if __name__ == "__main__":
    with one_line_errors("calibrate.py"):
        main(sys.argv[1:])
