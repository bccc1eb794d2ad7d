"""A network that leaves early, as it is shipped, against single exits as they are shipped; all of them ONNX files.

python -m benchmarks.shipping --dataDir DIR     # DIR holds CIFAR-10; the network is the one in pretrained/

Row by row, pictures that leave at an exit: the time of one in the file of the whole network, and in the file of that
exit alone. Then pictures of all kinds: one by one in the file of the network, and in batches in the bundle, against the
files of the last two exits. The policy is that of `benchmarks.early_exit`.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from benchmarks.early_exit import BATCH, RUN, TURN, each, fitted, halves, load
from benchmarks.timing import Case, interleaved, machine
from inference import bundle, conditional, exported, exporting, routing, saved
from inference.policies import Policy
from inference.saved import SavedModel
from reports.tables import table
from system.machine import ON_CPU

ONE, BUNDLE, OWN = "network.onnx", "bundle", "exit-{}.onnx"


def write(folder: Path, model: SavedModel, policy: Policy) -> None:
    """All files and the bundle."""
    (folder / ONE).write_bytes(conditional.content(model, policy, half=False))
    (folder / BUNDLE).mkdir()
    for name, content in bundle.contents(model, policy, half=False).items():
        (folder / BUNDLE / name).write_bytes(content)
    for position in policy.positions:
        alone = saved.load({position: model.files[position]})
        (folder / OWN.format(position)).write_bytes(exporting.content(alone, ".onnx"))


def case(path: Path, images: Tensor, size: int) -> Case:
    """A file or a bundle that is asked about pictures in batches of a size."""
    return each(runner(path), images, size)


def runner(path: Path) -> Callable[[Tensor], object]:
    """What answers by a file or a bundle."""
    if path.is_dir():
        return bundle.answers({file.name: file.read_bytes() for file in path.iterdir()})
    return exported.runnable(path.read_bytes(), path).answers


def compared(folder: Path, names: Sequence[str], images: Tensor, size: int, rounds: int) -> list[float]:
    """The seconds of each for one of the pictures; they take turns."""
    cases = {name: partial(case, folder / name, images, size) for name in names}
    seconds, count = interleaved(cases, rounds), min(len(images), TURN[size])
    return [seconds[name] / count for name in names]


def main() -> None:
    """Fit, write, measure: exit by exit, then all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataDir", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    model = load()
    odd, even = halves(arguments.dataDir)
    half = model.macs_to_exits[-1] / 2
    policy = fitted(model, odd, half)
    images = even.images
    left = routing.router(model, policy, ON_CPU)(images).exits
    print(f"{RUN.name}; {machine()}; median of {arguments.rounds}\n")
    with tempfile.TemporaryDirectory() as place:
        folder, rows = Path(place), []
        write(folder, model, policy)
        for exit, position in enumerate(policy.positions):
            one, own = compared(folder, (ONE, OWN.format(position)), images[left == exit], 1, arguments.rounds)
            rows.append((str(position), f"{1000 * one:.2f}", f"{1000 * own:.2f}", f"{one / own:.2f}"))
        titles = ("pictures that leave at", f"ms in {ONE}", "ms in the exit's own", "ratio")
        print(table(dict(zip(titles, zip(*rows, strict=True), strict=True))))
        single = [OWN.format(position) for position in policy.positions[-2:]]
        for name, size in ((ONE, 1), (BUNDLE, BATCH)):
            ours, *others = compared(folder, (name, *single), images, size, arguments.rounds)
            print(f"\n{name}, batches of {size}: {1 / ours:,.0f} img/s")
            for other, seconds in zip(single, others, strict=True):
                print(f"{other}: {1 / seconds:,.0f}; {seconds / ours:.2f} times as fast as that")


if __name__ == "__main__":
    main()
