"""Draw what was trained here beside the paper's results: test error against multiply-adds.

python -m benchmarks.published

Reads the exit files under `pretrained/` and writes `docs/results.png`. Where these have errors on held-out pictures,
`test.json` beside them has those on the test pictures, as `test.py --exit all --json` wrote them. The paper's figures
are those of its tables for CIFAR-10 and CIFAR-100 (arXiv 1611.01773), those of networks with a single exit that others
trained are from the logs of pytorch-cifar-models. Their multiply-adds are counted with the networks of this program.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from formats import exit_file
from models import names
from models.networks import cost

PROJECT = Path(__file__).parent.parent
PAPER = {
    "CIFAR10": {"ResNet-1001": 4.62, "AuxResNet-56-2": 5.89, "AuxResNet-56-5": 5.53, "AuxResNet-26-2/10": 3.91},
    "CIFAR100": {"ResNet-1001": 22.71, "AuxResNet-56-2": 26.83, "AuxResNet-56-5": 26.62, "AuxResNet-26-2/10": 19.69},
}
SINGLE = {  # after 200 epochs of SGD, https://github.com/chenyaofo/pytorch-cifar-models, the last epoch in its logs
    "CIFAR10": {"ResNet-20": 7.44, "ResNet-32": 6.59, "ResNet-44": 6.15, "ResNet-56": 5.79},
    "CIFAR100": {"ResNet-20": 31.52, "ResNet-32": 30.00, "ResNet-44": 28.37, "ResNet-56": 27.63},
}
# Full colours, then pale ones, without grey, which is for others.
COLOURS = [colormaps["tab20"](number) for number in (*range(0, 20, 2), *range(1, 20, 2)) if number // 2 != 7]
MARKERS = ("s", "^", "D", "v")  # of the paper's networks
SIDE = 32  # pixels
CLASSES = {"CIFAR10": 10, "CIFAR100": 100}
SHOWN = {"CIFAR10": (3.5, 12), "CIFAR100": (19, 33)}  # percent; what has no place in a panel is told in words
COSTS = (2.8e7, 8e9)  # multiply-adds
CROWDED = {  # what is drawn larger: where in the panel (left, bottom, width, height, from 0 to 1), and of which range
    "CIFAR10": ((0.4, 0.36, 0.59, 0.63), (3.6e7, 1.33e8), (5.3, 8.8)),
    "CIFAR100": ((0.4, 0.42, 0.59, 0.57), (3.6e7, 1.33e8), (26.2, 32)),
}


class Point(NamedTuple):
    """What an exit costs as a model of its own, in multiply-adds for a picture, and its test error in percent."""

    macs: int
    error: float

    def fits(self, data: str) -> bool:
        """Whether it has a place in the panel of a data set."""
        (lowest, highest), (least, most) = SHOWN[data], COSTS
        return lowest <= self.error <= highest and least <= self.macs <= most

    def __str__(self) -> str:
        return f"{self.error:.2f} % at {EngFormatter(places=1, sep=' ')(self.macs)}"


def last_exits(errors: dict[str, float], classes: int) -> dict[str, Point]:
    """The last exit of each network, by name, that has this error."""
    networks = {name: (names.parse(name), error) for name, error in errors.items()}
    return {
        name: Point(cost(network, classes, network.depth, SIDE).macs, error)
        for name, (network, error) in networks.items()
    }


def runs() -> list[Path]:
    """The folders of all runs in `pretrained/`, by their names; those of a second run of a network lie deeper."""
    found = (path.parent for path in (PROJECT / "pretrained").rglob("opt.json"))
    return sorted(found, key=lambda folder: (folder.name, folder))


def here() -> dict[str, dict[str, list[Point]]]:
    """The exits of each network that was trained here, shallow to deep, by data set and network."""
    found: dict[str, dict[str, list[Point]]] = defaultdict(dict)
    for folder in runs():
        errors = test_errors(folder)
        header = exit_file.read_header(exit_file.path_in(folder, max(errors)))
        network, classes = names.from_fields(header["network"]), len(header["classes"])
        points = [Point(cost(network, classes, position, SIDE).macs, error) for position, error in errors.items()]
        weights = header["options"]["exitWeights"]
        weighted = "" if weights == "sum" else f", exit weights {_in_short(weights)}"
        held = f", {count:,} pictures held out" if (count := header["options"]["valSize"]) else ""
        found[header["dataset"]][f"{header['name']}, {epochs(header)} epochs{weighted}{held}"] = points
    return found


def epochs(header: Mapping[str, Any]) -> str:
    """For how many epochs an exit was trained, those of the runs that its run began with before: `70 + 70`."""
    counts = [*(one["epochs"] for one in header["origin"]), header["options"]["nEpochs"]]
    return " + ".join(map(str, counts))


def _in_short(weights: str | Sequence[float]) -> str:
    return weights if isinstance(weights, str) else f"{weights[0]:g} to {weights[-1]:g}"


def test_errors(folder: Path) -> dict[int, float]:
    """The test error of each exit of a run in `pretrained/`, in percent, by position."""
    if (tested := folder / "test.json").exists():
        return {row["position"]: row["error_percent"] for row in json.loads(tested.read_text())["exits"]}
    return {position: exit_file.read_header(path)["error"] for position, path in exit_file.files_in(folder).items()}


def draw(path: Path) -> None:
    """A panel for each data set: lines through the exits of networks that were trained here; those of the paper and of
    others in grey. Where they are crowded, they are also drawn larger."""
    figure, trained = Figure(figsize=(11, 7.5), dpi=120, layout="constrained"), here()
    everywhere = dict.fromkeys(name for networks in trained.values() for name in networks)
    colours = dict(zip(everywhere, COLOURS, strict=False))  # the same in both panels
    for axes, data in zip(figure.subplots(1, len(PAPER)), PAPER, strict=True):
        single = last_exits(SINGLE[data], CLASSES[data]).values()
        paper = last_exits(PAPER[data], CLASSES[data])
        axes.set_xscale("log")  # before `plot`, whose formatter it would replace
        plot(axes, trained[data], colours, single, paper)
        exits = [(name, point) for name, points in trained[data].items() for point in points]
        outside = [f"{name}: {point}" for name, point in exits if not point.fits(data)]
        for text in ("not shown:", *outside):
            axes.plot([], [], " ", label=text)
        axes.set(title=f"CIFAR-{CLASSES[data]}", xlabel="multiply-adds for one picture", ylabel="test error (%)")
        axes.set(xlim=COSTS, ylim=SHOWN[data])
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper left", bbox_to_anchor=(-0.05, -0.12), frameon=False, fontsize="small")
        place, costs, errors = CROWDED[data]
        larger = axes.inset_axes(place, xlim=costs, ylim=errors)
        plot(larger, trained[data], colours, single, paper)
        larger.tick_params(labelsize="small")
        axes.indicate_inset_zoom(larger)
    FigureCanvasAgg(figure).print_png(str(path))


def plot(
    axes: Axes,
    trained: Mapping[str, Sequence[Point]],
    colours: Mapping[str, Sequence[float]],
    single: Iterable[Point],
    paper: Mapping[str, Point],
) -> None:
    """The exits of networks that were trained here, networks with a single exit, and the paper's last exits, as error
    against multiply-adds."""
    axes.plot(*zip(*single, strict=True), "x--", color="0.6", label="ResNet-20, 32, 44, 56; SGD, 200 epochs")
    for name, points in trained.items():
        axes.plot(*zip(*points, strict=True), "o-", color=colours[name], label=f"{name}, trained here")
    for (name, point), marker in zip(paper.items(), MARKERS, strict=True):
        axes.plot(*point, marker, color="0.2", markersize=9, fillstyle="none", label=f"{name}, the paper, 400 epochs")
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    draw(PROJECT / "docs" / "results.png")
