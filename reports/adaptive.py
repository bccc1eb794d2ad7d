"""What a policy gives: error against multiply-adds as a table, as CSV and as a plot; what routing saves in time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.plots import GREY, against_macs, distinct, png, style
from reports.tables import amount, table
from system.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What `sweeping.sweep` gives: rows with a value for each of its columns, None where a row has none.
Sweep = Sequence[Mapping[str, Any]]


@style()
def draw(title: str, rows: Sweep, macs: float, error: float) -> bytes:
    """The plot of a sweep, with the policy that was chosen at these multiply-adds and this error."""
    return png(_figure(title, rows, macs, error))


def _figure(title: str, rows: Sweep, macs: float, error: float) -> "Figure":
    exits, points, shares = (rows_with(name, rows) for name in ("exit", "threshold", "ratio"))
    cost = [row["macs"] for row in points]
    line, other = distinct(2)
    figure, axes = against_macs(title, "multiply-adds for one picture, on average")
    axes.plot(cost, [row["mixture"] for row in points], "--", color=GREY, label="mixture of neighbouring exits")
    axes.plot([row["macs"] for row in exits], [row["error"] for row in exits], "o", color=GREY, label="single exits")
    axes.plot(cost, [row["error"] for row in points], "-", color=line, label="early exit by confidence")
    if shares:
        places = [row["macs"] for row in shares], [row["error"] for row in shares]
        axes.plot(*places, "-", color=other, label="early exit in shares, as MSDNet")
    axes.plot(
        macs, error, "D", color=other if shares else line, label=f"the policy: {error:.2f} % at {amount(round(macs))}"
    )
    axes.plot(cost, [row["oracle"] for row in points], ":", color=GREY, label="early exit by an oracle")
    for row in exits:
        looks = {"xytext": (6, 6), "textcoords": "offset points", "fontsize": "small", "color": GREY}
        axes.annotate(f"exit {row['exit']}", (row["macs"], row["error"]), **looks)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure


def rows_with(column: str, rows: Sweep) -> Sweep:
    """The rows of a sweep that have a value in a column."""
    return [row for row in rows if row[column] is not None]


def describe(rows: Sweep, temperatures: Sequence[float], thresholds: Sequence[float], histogram: Sequence[int]) -> str:
    """A row for each exit: its rule, how many pictures leave there, and what it costs and gives alone."""
    exits = rows_with("exit", rows)
    rules = [*(f"{value:.6f}" if value <= 1 else "nobody" for value in thresholds[:-1]), "everybody"]
    return table(
        {
            "exit": [str(row["exit"]) for row in exits],
            "temperature": [f"{value:.3f}" for value in temperatures],
            "threshold": rules,
            "leave here": [f"{100 * count / sum(histogram):.1f} %" for count in histogram],
            "multiply-adds": [amount(row["macs"]) for row in exits],
            "error alone": [f"{row['error']:.2f} %" for row in exits],
        }
    )


def verdict(rows: Sweep, macs: float, error: float, pictures: int, dataset: str) -> str:
    """The policy in words: what it costs and gives, beside the last exit and chance."""
    exits = rows_with("exit", rows)
    last = exits[-1]
    chance = np.interp(macs, [row["macs"] for row in exits], [row["error"] for row in exits])
    return (
        f"policy: error {error:.2f} % at {amount(round(macs))} multiply-adds on average, on {pictures:,} pictures "
        f"({printable(dataset)})\n"
        f"the last exit: {last['error']:.2f} % at {amount(last['macs'])}; neighbouring exits at random: {chance:.2f} % "
        f"at {amount(round(macs))}"
    )


@dataclass(frozen=True)
class Contender:
    """A way to classify pictures, measured: percent, multiply-adds on average, pictures a second in batches, and the
    milliseconds that one picture takes (the mean, the median, and what 95 of 100 stay below)."""

    name: str
    error: float
    macs: float
    per_second: float
    mean: float
    median: float
    p95: float


def routed(contenders: Sequence[Contender], positions: Sequence[int], histogram: Sequence[int]) -> str:
    """What a policy, the first contender, does to test pictures, beside single exits: a table, the exits at which the
    pictures leave, and how its speed compares, in words."""
    columns = {
        "": [c.name for c in contenders],
        "error": [f"{c.error:.2f} %" for c in contenders],
        "multiply-adds": [amount(round(c.macs)) for c in contenders],
        "img/s": [f"{c.per_second:,.0f}" for c in contenders],
        "mean ms": [f"{c.mean:.2f}" for c in contenders],
        "median ms": [f"{c.median:.2f}" for c in contenders],
        "p95 ms": [f"{c.p95:.2f}" for c in contenders],
    }
    policy, *others = contenders
    compared = (_compared(policy, other) for other in others)
    return "\n".join([table(columns, words={""}), leaving(positions, histogram), *compared])


def leaving(positions: Sequence[int], histogram: Sequence[int]) -> str:
    """How many of all pictures leave at each exit: `leave at 15: 44.9 %, 25: 55.1 %`."""
    shares = (100 * count / sum(histogram) for count in histogram)
    return "leave at " + ", ".join(f"{exit}: {share:.1f} %" for exit, share in zip(positions, shares, strict=True))


def _compared(policy: Contender, other: Contender) -> str:
    """How the policy's speed compares with another's; above 1 the policy wins."""
    batches, mean, p95 = policy.per_second / other.per_second, other.mean / policy.mean, other.p95 / policy.p95
    return (
        f"against {other.name}, the policy is {batches:.2f} times as fast in batches, "
        f"{mean:.2f} times one by one, on average ({p95:.2f} at the 95th percentile)"
    )
