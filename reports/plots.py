"""Pictures of runs: the error of each exit against epochs, as means over runs of one configuration."""

import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Rows = Sequence[Mapping[str, Any]]  # a run's log, a row for each epoch


@dataclass(frozen=True)
class Curve:
    """Errors in percent after some epochs, counted from 1: their mean over runs, and their standard deviation."""

    label: str
    epochs: Sequence[int]
    mean: Sequence[float]
    spread: Sequence[float]


def curve(label: str, runs: Sequence[Rows], column: str) -> Curve:
    """One column of the logs of several runs, as far as all of them have come, where all of them have a value."""
    rows = enumerate(zip(*([row[column] for row in rows] for rows in runs), strict=False), 1)
    points = {epoch: values for epoch, values in rows if None not in values}
    means, spreads = ([of(values) for values in points.values()] for of in (statistics.mean, deviation))
    return Curve(label, list(points), means, spreads)


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample; 0 for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def draw_run(title: str, rows: Rows, exits: Sequence[int], held_out: str) -> bytes:
    """The picture of one run as a PNG: a colour for each exit, training errors dashed."""
    solid = [curve(f"exit {position}", [rows], f"{held_out}_error_{position}") for position in exits]
    dashed = [curve("train", [rows], f"train_error_{position}") for position in exits]
    return draw(title, solid, dashed)


def draw(title: str, solid: Sequence[Curve], dashed: Sequence[Curve] = ()) -> bytes:
    """Curves with bands of one standard deviation as a PNG; the first dashed one has the colour of the first solid one,
    and so on."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes half a second to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    for index, one in enumerate(solid):
        style = ("-", "-.", ":")[index // 10 % 3]  # there are ten colours
        marker = "o" if len(one.epochs) < 30 else None
        label = f"{one.label}: {one.mean[-1]:.2f} %" if one.epochs else one.label
        axes.plot(one.epochs, one.mean, color=f"C{index}", linestyle=style, marker=marker, markersize=4, label=label)
        low, high = ([m + sign * s for m, s in zip(one.mean, one.spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(one.epochs, low, high, color=f"C{index}", alpha=0.2, linewidth=0)
    for index, one in enumerate(dashed):
        label = one.label if index == 0 else None
        axes.plot(one.epochs, one.mean, color=f"C{index}", linestyle="--", linewidth=1, label=label)
    axes.set(title=title, xlabel="epoch", ylabel="error (%)", ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    return picture.getvalue()
