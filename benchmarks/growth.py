"""How the time of a training step grows with batch size, depth and widen factor, on the CPU.

python -m benchmarks.growth

Writes `benchmarks/results/growth.md`, with the exponent of the power law that fits best, and `growth.png`.
"""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.cases import BATCH, ours
from benchmarks.timing import interleaved, machine

RESULTS = Path(__file__).parent / "results"
AXES = {
    "batch size": {size: ("AuxResNet-56-5", size) for size in (32, 64, 128, 256, 512)},
    "depth": {depth: (f"AuxResNet-{depth}-5", BATCH) for depth in (20, 32, 44, 56, 80, 110)},
    "widen factor": {widen: ("AuxResNet-26-2" + (f"/{widen}" if widen > 1 else ""), BATCH) for widen in (1, 2, 4)},
}


def measure(points: Mapping[int, tuple[str, int]], rounds: int) -> dict[int, float]:
    """Median seconds of a step at each point of an axis; the points take turns."""
    cases = {str(x): partial(ours, name, "--nThreads", "0", batch=batch) for x, (name, batch) in points.items()}
    return {int(x): seconds for x, seconds in interleaved(cases, rounds).items()}


def fit(seconds: Mapping[int, float]) -> tuple[float, float]:
    """Exponent e and factor f of the power law f · x^e, least squares in the logarithms."""
    exponent, logarithm = np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)
    return float(exponent), float(np.exp(logarithm))


def table(results: Mapping[str, Mapping[int, float]], rounds: int) -> str:
    """All axes as Markdown."""
    text = f"# Time of a training step\n\nfloat32, eager; {machine()}; median of {rounds} steps in turn.\n"
    for axis, seconds in results.items():
        networks = AXES[axis]
        text += f"\n| {axis} | network | batch | ms a step | images/s |\n|---|---|---|---|---|\n"
        for x, value in seconds.items():
            name, batch = networks[x]
            text += f"| {x} | {name} | {batch} | {1000 * value:.0f} | {batch / value:.0f} |\n"
        text += f"\nThe time of a step grows with the {axis} to the power of {fit(seconds)[0]:.2f}.\n"
    return text


def draw(path: Path, results: Mapping[str, Mapping[int, float]]) -> None:
    """One panel per axis, both scales logarithmic, with the fitted power law."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (axis, seconds) in zip(figure.subplots(1, len(results)), results.items(), strict=True):
        exponent, factor = fit(seconds)
        x = np.array(list(seconds))
        axes.loglog(x, [1000 * s for s in seconds.values()], "o")
        axes.loglog(x, 1000 * factor * x**exponent, "--", color="grey", label=f"exponent {exponent:.2f}")
        axes.set(xlabel=axis, ylabel="ms a step", xticks=x, xticklabels=x)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.legend()
        axes.grid(alpha=0.3)
    FigureCanvasAgg(figure).print_png(str(path))


def main() -> None:
    """Measure every axis, write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    results = {axis: measure(points, rounds) for axis, points in AXES.items()}
    RESULTS.mkdir(exist_ok=True)
    text = table(results, rounds)
    (RESULTS / "growth.md").write_text(text)
    draw(RESULTS / "growth.png", results)
    print(text)


if __name__ == "__main__":
    main()
