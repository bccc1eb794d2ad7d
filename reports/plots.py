"""Plots as PNG files: the error of each exit against epochs, of one run, or as means over runs of one configuration."""

import io
import logging
import statistics
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from formats.log_file import error_column
from system.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Rows = Sequence[Mapping[str, Any]]  # a run's log, a row for each epoch
Colour = tuple[float, float, float]  # red, green, blue from 0 to 1

FONT = "DejaVu Sans"  # comes with matplotlib
PLAIN_TEXT = {"text.parse_math": False, "text.usetex": False, "font.family": FONT}  # a $ in a name is a $
SIZE, RESOLUTION = (10.0, 5.5), 120  # inches, dots per inch
LEGEND_ROW = 0.19  # inches
LEGEND_WIDTH, TITLE_WIDTH, LINES = 34, 56, 5  # characters, and lines that a long text may take
GREY = "0.45"
STYLES = ("-", "--", "-.", ":")
HUES = 10  # in matplotlib's cycle of colours


@dataclass(frozen=True)
class Curve:
    """Errors in percent after some epochs, counted from 1: their mean over runs, and their standard deviation."""

    label: str
    epochs: Sequence[int]
    mean: Sequence[float]
    spread: Sequence[float]
    runs: int = 1

    @property
    def last(self) -> str:
        """The last error in words: `3.91 %`, over several runs `3.91 ± 0.08 %`."""
        if not self.epochs:
            return "none yet"
        return f"{self.mean[-1]:.2f}{f' ± {self.spread[-1]:.2f}' if self.runs > 1 else ''} %"

    def band(self, first: float = 0) -> tuple[list[float], list[float]]:
        """One standard deviation below and above the mean, from epoch `first` on."""
        points = [point for point in zip(self.epochs, self.mean, self.spread, strict=True) if point[0] >= first]
        return [mean - spread for _, mean, spread in points], [mean + spread for _, mean, spread in points]


@dataclass(frozen=True)
class _Group:
    """Curves under one heading of the legend, and how they are drawn."""

    heading: str
    curves: Sequence[Curve]
    colours: Sequence[Colour]
    style: str


@contextmanager
def style() -> Iterator[None]:
    """A context in which figures are made and drawn: any text is shown as it is, and nothing is told of fonts, folders
    and layouts. Raises UserError where matplotlib fails, whatever the reason."""
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)
    try:
        import matplotlib  # takes half a second

        with matplotlib.rc_context(PLAIN_TEXT), warnings.catch_warnings(action="ignore"):
            yield
    except Exception as error:  # of settings, fonts, files and arithmetic
        advice = "; pip install -r requirements.txt" if isinstance(error, ImportError) else ""
        raise UserError(f"no plot could be drawn: {type(error).__name__}: {error}{advice}") from error


def averaged(label: str, runs: Sequence[Rows], column: str) -> Curve:
    """One column of the logs of several runs, as far as all of them have come, where all of them have a value."""
    epochs = enumerate(zip(*([row[column] for row in rows] for rows in runs), strict=False), 1)
    points = {epoch: values for epoch, values in epochs if None not in values}
    means, spreads = ([of(values) for values in points.values()] for of in (statistics.mean, deviation))
    return Curve(label, list(points), means, spreads, len(runs))


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample; 0 for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


@style()
def draw_run(title: str, rows: Rows, exits: Sequence[int], evaluated_name: str) -> bytes:
    """The plot of one run: a colour for each exit; solid what `evaluated_name` ("test" or "validation") pictures gave,
    dashed the training pictures."""
    colours = distinct(len(exits))
    groups = [
        _Group(
            f"{name} error",
            [averaged(f"exit {position}", [rows], error_column(pictures, position)) for position in exits],
            colours,
            line_style,
        )
        for name, pictures, line_style in ((evaluated_name, evaluated_name, "-"), ("training", "train", "--"))
    ]
    return png(_figure(title, groups))


@style()
def draw_groups(title: str, groups: Mapping[str, Sequence[Curve]]) -> bytes:
    """The plot of several groups of curves, by heading, with bands of one standard deviation: a colour for each group,
    its shades from the first curve, the palest, to the last. A group that is alone has a colour for each curve."""
    several = len(groups) > 1
    drawn = [
        _Group(
            heading,
            curves,
            _shades(index, len(curves)) if several else distinct(len(curves)),
            STYLES[index // HUES % len(STYLES)],
        )
        for index, (heading, curves) in enumerate(groups.items())
    ]
    return png(_figure(title, drawn))


def png(figure: "Figure") -> bytes:
    """A figure as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    plot = io.BytesIO()
    FigureCanvasAgg(figure).print_png(plot)
    return plot.getvalue()


def empty(title: str, xlabel: str, size: tuple[float, float]) -> "tuple[Figure, Axes]":
    """A figure of this size, in inches, and its axes, on which errors in percent will be drawn."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=RESOLUTION, layout="constrained")
    axes = figure.add_subplot(xlabel=xlabel, ylabel="error (%)")
    axes.set_title(fitted(title, TITLE_WIDTH), loc="left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def against_macs(title: str, xlabel: str) -> "tuple[Figure, Axes]":
    """A figure and its axes, empty, for errors against multiply-adds."""
    from matplotlib.ticker import EngFormatter

    figure, axes = empty(title, xlabel, (8.0, 5.0))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    return figure, axes


def _figure(title: str, groups: Sequence[_Group]) -> "Figure":
    figure, axes = empty(title, "epoch", SIZE)
    for group in groups:
        _add_curves(axes, group)
    _limit(axes, [curve for group in groups for curve in group.curves])
    _add_legend(figure, groups, iter(axes.lines))
    return figure


def _add_curves(axes: "Axes", group: _Group) -> None:
    filled = "full" if group.style == "-" else "none"
    for curve, colour in zip(group.curves, group.colours, strict=True):
        marker = "o" if len(curve.epochs) < 30 else None
        axes.plot(curve.epochs, curve.mean, group.style, color=colour, marker=marker, markersize=4, fillstyle=filled)
        if curve.runs > 1:
            axes.fill_between(curve.epochs, *curve.band(), color=colour, alpha=0.2, linewidth=0)


def _limit(axes: "Axes", curves: Sequence[Curve]) -> None:
    """Whole epochs from 1 on, and errors from a little below the lowest to a little above the highest that comes after
    the first quarter of the epochs. The first epochs, which may have 90 %, leave the plot at the top; otherwise they
    would press all the rest into a narrow strip at the bottom."""
    last = max((curve.epochs[-1] for curve in curves if curve.epochs), default=1)
    axes.set_xlim(0.5, last + max(0.02 * last, 0.5))
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    settled = [curve.band(min(last // 4 + 1, curve.epochs[-1])) for curve in curves if curve.epochs]
    errors = [error for band in settled for side in band for error in side] or [0.0, 100.0]
    lowest = min((error for curve in curves for error in curve.band()[0]), default=0.0)
    margin = 0.05 * (max(errors) - lowest) or 1.0
    axes.set_ylim(max(0.0, lowest - margin), max(errors) + margin)


def _add_legend(figure: "Figure", groups: Sequence[_Group], lines: "Iterator[Line2D]") -> None:
    """The legend, right of the curves, with each one's last error; the figure grows with a long one."""
    from matplotlib.lines import Line2D

    headings = [fitted(group.heading, LEGEND_WIDTH) for group in groups]
    handles, labels = [], []
    for heading, group in zip(headings, groups, strict=True):
        handles += [Line2D([], [], linestyle="none"), *islice(lines, len(group.curves))]
        labels += [heading, *(f"{fitted(curve.label, LEGEND_WIDTH)}: {curve.last}" for curve in group.curves)]
    legend = figure.legend(handles, labels, loc="outside right upper", fontsize="small", frameon=False)
    for text in legend.get_texts():
        text.set_fontweight("bold" if text.get_text() in headings else "normal")
    rows = sum(label.count("\n") + 1 for label in labels)
    figure.set_figheight(max(SIZE[1], LEGEND_ROW * rows + 0.5))


def fitted(text: str, width: int, lines: int = LINES) -> str:
    """A text in a few lines of this many characters, cut where it needs more; a � for each that the font lacks."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    fonts = [get_font(findfont(FontProperties(family=FONT, weight=weight))) for weight in ("normal", "bold")]
    plain = " ".join(text.split())
    known = "".join(c if all(font.get_char_index(ord(c)) for font in fonts) else "�" for c in plain)
    return textwrap.fill(known, width, max_lines=lines, placeholder=" …")


def distinct(count: int) -> list[Colour]:
    """Colours that are told apart at a glance, as far as there are enough of them."""
    from matplotlib import colormaps

    if count <= HUES:
        return list(colormaps["tab10"].colors[:count])
    return [colormaps["viridis"](0.9 * index / (count - 1))[:3] for index in range(count)]


def _shades(hue: int, count: int) -> list[Colour]:
    """Shades of one colour, from pale to full."""
    full = distinct(HUES)[hue % HUES]
    parts = [1 - 0.65 * (count - 1 - index) / max(count - 1, 1) for index in range(count)]
    return [tuple(1 - part * (1 - channel) for channel in full) for part in parts]
