"""Print the test error of a saved model, in percent.

python test.py CIFAR10 AuxResNet-56-5                        # error 7.39: the last exit
python test.py CIFAR10 AuxResNet-56-5 --exit 25              # another exit, from its own file
python test.py CIFAR10 AuxResNet-56-5 --exit all             # the card of all: what each costs, and what it gives
python test.py CIFAR10 AuxResNet-56-5 --exit ensemble        # the mean of their probabilities
python test.py CIFAR10 AuxResNet-56-5 --perClass             # the error of each class
python test.py CIFAR10 AuxResNet-56-5 --policy policy.json   # early exit by a file of calibrate.py
python test.py CIFAR10 AuxResNet-56-5 --policy policy.json --compile true    # by compiled code
python test.py CIFAR10 path/to/run                           # or path/to/run/exit-25.safetensors
python test.py CIFAR10 AuxResNet-56-5 --precision auto       # in 16 bits where the machine computes them natively
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
from options.values import ALL, ENSEMBLE, MSDNET
from reports import destination
from system.errors import UserError, one_line_errors
from system.files import write
from system.output import tell

if TYPE_CHECKING:
    from datasets.pictures import Pictures
    from inference.calibration import Answered
    from inference.policies import Policy
    from inference.saved import SavedModel
    from reports.card_plots import Line, Point
    from system.machine import Machine


def main(argv: Sequence[str]) -> None:
    """Find the files, rebuild the network, test it, print."""
    options = opts.TEST.parsed(argv)
    for file in filter(None, (options.json, options.plot)):
        destination.check(Path(file))
    folder = names.folder_called(catalog.label(options.data), options.model)

    from inference import asking, saved  # imports PyTorch, which --help and mistakes need not wait for
    from system import arithmetic, devices, machine

    together = options.exit == ENSEMBLE or (options.policy and not options.exit)
    wanted = saved.LEARNT if together else options.exit
    model = saved.find(options.model, folder, wanted, options.save)
    if options.exit == ENSEMBLE and len(model.files) < 2:
        only = max(model.files)
        raise UserError(
            f"--exit ensemble is for two exits or more that learnt, here it is {only} alone; give --exit {only}"
        )
    if options.mirror:
        rules.mirroring(model.header["dataset"])
    devices.compute_in(options.cpuThreads)
    runs_on = machine.choose(options.nGPU, options.precision)
    policy = chosen_policy(options, model)
    if options.compile:
        arithmetic.check_compiles(runs_on.device)
    pictures = asking.test_pictures(model, options.data, Path(options.dataDir))
    if options.exit == ALL:
        print_card(options, model, policy, pictures, runs_on)
    elif policy:
        print_policy(options, model, policy, pictures, runs_on)
    else:
        print_error(options, model, pictures, runs_on)


def chosen_policy(options: Namespace, model: "SavedModel") -> "Policy | None":
    """The policy of --policy, or, where all exits are drawn, that of the run's folder. One of the folder that does not
    belong to the network is named on standard error, and left out."""
    from inference import policies, saved

    file = Path(options.policy) if options.policy else model.folder / destination.POLICY
    drawn = options.exit == ALL and options.plot and not options.mirror and file.exists()
    if not options.policy and not drawn:
        return None
    learnt = saved.standalone(model, *saved.choose(model.files, saved.LEARNT))  # the exits that a policy is for
    try:
        return policies.find(file, learnt)
    except UserError as error:
        if options.policy:
            raise
        tell(f"early exit is not drawn: {error}")
        return None


def print_card(
    options: Namespace, model: "SavedModel", policy: "Policy | None", pictures: "Pictures", runs_on: "Machine"
) -> None:
    """Write the card of all exits and draw it, with a policy, where that is asked for; then print it."""
    from inference import asking, card
    from inference.calibration import Answered
    from reports import card_plots, cards

    logits, targets = asking.collect(model, pictures, runs_on, options.mirror)
    found = card.measure(model, catalog.label(options.data), logits, targets, runs_on, options.mirror)
    try:
        if options.json:
            write(Path(options.json), cards.as_json(found))
        if options.plot:
            points, curve = {"exits": card_plots.exit_points(found)}, None
            if policy:
                exits = zip(model.files, logits, strict=True)
                asked = [z.cpu() for position, z in exits if position in policy.positions]
                point, curve = early_exit_places(model, policy, Answered(asked, targets.cpu(), options.data))
                points["early exit"] = [point]
            write(Path(options.plot), card_plots.draw_tradeoff(f"{found.network} on {found.data}", points, curve))
    finally:  # whatever becomes of the files, or of what is printed, the other is there
        print(cards.as_text(found, model.folder))


def early_exit_places(model: "SavedModel", policy: "Policy", answers: "Answered") -> "tuple[Point, Line]":
    """Where early exit lies in a plot: the policy on the test pictures, and the curve of all policies of its
    protocol on the same."""
    from inference import early_exit, saved, sweeping
    from reports.adaptive import rows_with
    from reports.card_plots import Line, Point

    macs = saved.standalone(model, *policy.positions).macs_to_exits
    figures = early_exit.simulate(answers.logits, policy).figures(answers.targets, macs)
    parameter = "ratio" if policy.protocol == MSDNET else "threshold"
    rows = rows_with(parameter, sweeping.sweep(answers, policy, macs))
    places = [(row["macs"], row["error"]) for row in rows]
    curve = Line(f"early exit by every {parameter}, simulated on these pictures", places)
    return Point("policy", figures["macs"], figures["error"]), curve


def print_error(options: Namespace, model: "SavedModel", pictures: "Pictures", runs_on: "Machine") -> None:
    """Print the error of one exit, or of the ensemble of those that learnt, and, where asked for, of each class, which
    may be drawn first."""
    from inference import asking
    from models import metrics
    from reports import card_plots, cards

    ensemble = options.exit == ENSEMBLE
    (logits,), targets = asking.collect(model, pictures, runs_on, options.mirror, ensemble)
    confusion = metrics.confusion(logits, targets) if options.perClass else None
    try:
        if options.plot:
            who = "the ensemble" if ensemble else f"exit {max(model.files)}"
            title = f"{who} of {model.header['name']} on {catalog.label(options.data)}"
            write(Path(options.plot), card_plots.draw_confusion(title, confusion, pictures.classes))
    finally:
        print(f"error {metrics.top_error(logits, targets):.2f}")
        if confusion:
            print(f"\n{cards.class_table(confusion, pictures.classes)}")


def print_policy(
    options: Namespace, model: "SavedModel", policy: "Policy", pictures: "Pictures", runs_on: "Machine"
) -> None:
    """Print the error of routing the pictures by a policy, and what it costs beside single exits."""
    from inference import routing
    from reports import adaptive
    from system import arithmetic

    with arithmetic.compiling():
        contenders, histogram = routing.compare(model, policy, pictures, runs_on, options.compile)
    print(f"error {contenders[0].error:.2f}\n\n{adaptive.routed(contenders, policy.positions, histogram)}")


if __name__ == "__main__":
    with one_line_errors("test.py"):
        main(sys.argv[1:])
