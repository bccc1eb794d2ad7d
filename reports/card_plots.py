"""Plots of what a test found, as PNG files: error against multiply-adds, and which class is taken for which."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.cards import Card, pareto
from reports.plots import GREY, RESOLUTION, TITLE_WIDTH, Colour, against_macs, distinct, fitted, png, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL, SMALLEST, LARGEST = 0.55, 5.0, 16.0  # inches: of a class in a plot of classes; of a side of the plot
WRITTEN, NAMED = 20, 100  # classes up to which percentages are written into cells; up to which classes are named
CELLS = 800  # a side, at most: a cell is two pixels wide
NAME_WIDTH = 18  # characters
DARK = 45  # percent from which a cell needs white letters
PALE = 0.4  # shades go by the percentage to this power, so that a few percent are seen beside 95


@dataclass(frozen=True)
class Point:
    """A way to classify: multiply-adds for one picture (on average, where they differ), and error in percent."""

    label: str
    macs: float
    error: float


@dataclass(frozen=True)
class Line:
    """Places between ways to classify: multiply-adds for one picture on average, and errors in percent."""

    label: str
    places: Sequence[tuple[float, float]]


def exit_points(card: Card) -> list[Point]:
    """The exits of a card."""
    return [Point(f"exit {e.position}", e.macs, e.error_percent) for e in card.exits]


@style()
def draw_tradeoff(title: str, series: Mapping[str, Sequence[Point]], curve: Line | None = None) -> bytes:
    """Error against multiply-adds: each series of points, by name, in a colour; its Pareto-optimal ones joined. A curve
    has the colour of the last series."""
    return png(_tradeoff(title, series, curve))


def _tradeoff(title: str, series: Mapping[str, Sequence[Point]], curve: Line | None = None) -> "Figure":
    figure, axes = against_macs(title, "multiply-adds for one picture")
    colours = distinct(len(series))
    if curve:
        axes.plot(*zip(*curve.places, strict=True), "-", color=colours[-1], linewidth=1, label=curve.label)
    for (name, points), colour in zip(series.items(), colours, strict=True):
        _add_points(axes, name, points, colour)
    axes.margins(x=0.12, y=0.15)
    axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
    axes.legend(frameon=False)
    return figure


def _add_points(axes: "Axes", name: str, points: Sequence[Point], colour: Colour) -> None:
    """A series: filled and joined what is Pareto-optimal in it, hollow the rest; every point with its label."""
    optimal = pareto([(point.macs, point.error) for point in points])
    best = sorted((p for p, is_best in zip(points, optimal, strict=True) if is_best), key=lambda point: point.macs)
    rest = [p for p, is_best in zip(points, optimal, strict=True) if not is_best]
    looks = {"color": colour, "markersize": 7}
    label = f"{name}, Pareto-optimal" if len(points) > 1 else name
    axes.plot([p.macs for p in best], [p.error for p in best], "o-", label=label, **looks)
    if rest:
        line = axes.plot([p.macs for p in rest], [p.error for p in rest], "o", fillstyle="none", **looks)
        line[0].set_label(f"{name}, others")
    for point in points:
        text = f"{fitted(point.label, NAME_WIDTH)}\n{point.error:.2f} %"
        offset = {"xytext": (6, 6), "textcoords": "offset points"}
        axes.annotate(text, (point.macs, point.error), fontsize="small", color=GREY, **offset)


@style()
def draw_confusion(title: str, confusion: Sequence[Mapping[int, int]], classes: Sequence[str]) -> bytes:
    """Which class (row) is taken for which (column), in percent of the pictures of the row; `confusion` has for each
    class the numbers of pictures by answer. Where there are very many classes, neighbours share a row and a column."""
    return png(_confusion(title, confusion, classes))


def _confusion(title: str, confusion: Sequence[Mapping[int, int]], classes: Sequence[str]) -> "Figure":
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    together = math.ceil(len(classes) / CELLS)
    shares = _shares(confusion, together)
    side = min(max(CELL * len(classes) + 1.5, SMALLEST), LARGEST)
    figure = Figure(figsize=(side + 1, side), dpi=RESOLUTION, layout="constrained")
    many = f", {together} to a cell" if together > 1 else ""
    axes = figure.add_subplot(xlabel=f"answer{many}", ylabel=f"class of the picture{many}")
    axes.set_title(fitted(title, TITLE_WIDTH), loc="left")
    cells = axes.imshow(shares, cmap="Blues", norm=PowerNorm(PALE, 0, 100))
    bar = figure.colorbar(cells, shrink=0.8, label="pictures of the class (%)", ticks=[0, 1, 5, 20, 50, 100])
    bar.outline.set_visible(False)
    axes.spines[:].set_visible(False)
    _name_classes(axes, classes)
    if len(classes) <= WRITTEN:
        _write_shares(axes, shares)
    return figure


def _shares(confusion: Sequence[Mapping[int, int]], together: int) -> list[list[float]]:
    """Percent of the pictures of each row that are taken for each column, so many classes together in either."""
    side = math.ceil(len(confusion) / together)
    counts = [[0] * side for _ in range(side)]
    for index, answers in enumerate(confusion):
        for answer, count in answers.items():
            counts[index // together][answer // together] += count
    return [[100 * count / max(sum(row), 1) for count in row] for row in counts]


def _name_classes(axes: "Axes", classes: Sequence[str]) -> None:
    if len(classes) > NAMED:
        return
    names = [fitted(name, NAME_WIDTH, lines=1) for name in classes]
    size = "medium" if len(classes) <= WRITTEN else "xx-small"
    axes.set_xticks(range(len(classes)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(len(classes)), names, fontsize=size)
    axes.tick_params(length=0)


def _write_shares(axes: "Axes", shares: Sequence[Sequence[float]]) -> None:
    """The percentages that are not 0, in their cells."""
    for row, values in enumerate(shares):
        for column, value in enumerate(values):
            if value:
                colour = "white" if value > DARK else "black"
                axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize="small")
