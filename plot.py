"""Draw several runs into one picture, and print mean and standard deviation over those of one configuration.

python plot.py runs/*/CIFAR10-AuxResNet-26-2
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import checkpoints
import curves
import opts
from errors import one_line_errors
from report import table

Runs = dict[str, list[list[dict[str, float]]]]  # the logs of the runs of each configuration, by its label


def main(argv: Sequence[str]) -> None:
    """Read the runs, group them, draw, print."""
    options = opts.parse_plot(argv)
    folders = [Path(run) for run in options.runs]
    groups = grouped([(vars(opts.from_saved(opts.load(folder))), checkpoints.read_log(folder)) for folder in folders])
    shown = [curve for label, runs in groups.items() for curve in held_out_curves(label, runs)]
    checkpoints.write(Path(options.out), curves.draw("error on held-out pictures", shown))
    print(summary(groups))
    print(f"\npicture: {options.out}")


def grouped(runs: Sequence[tuple[Mapping[str, Any], list[dict[str, float]]]]) -> Runs:
    """The logs by configuration: what differs between runs besides their seed, folders and machine."""
    kinds = [{name: value for name, value in of.items() if name not in opts.FREE_BETWEEN_RUNS} for of, _ in runs]
    differing = [name for name in kinds[0] if any(kind[name] != kinds[0][name] for kind in kinds)]
    groups: Runs = {}
    for kind, (_, rows) in zip(kinds, runs, strict=True):
        label = opts.written({name: kind[name] for name in differing}) or "all runs"
        groups.setdefault(label, []).append(rows)
    return groups


def exit_columns(rows: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """The columns of a log with errors on held-out pictures, by the exits' positions, shallow to deep."""
    columns = [name for name in rows[0] if "_error_" in name and not name.startswith("train")]
    return {name.rpartition("_")[2]: name for name in columns}


def held_out_curves(label: str, runs: list[list[dict[str, float]]]) -> list[curves.Curve]:
    """A curve for each exit of one configuration."""
    return [
        curves.curve(f"{label}, exit {position}", runs, column) for position, column in exit_columns(runs[0]).items()
    ]


def summary(groups: Runs) -> str:
    """A row for each configuration and exit: the error after the last epoch that all its runs have come to."""
    cells: dict[str, list[str]] = {
        title: [] for title in ("exit", "runs", "epochs", "error", "s an epoch", "runs with")
    }
    for label, runs in groups.items():
        epochs = min(map(len, runs))
        seconds = sum(row["seconds"] for rows in runs for row in rows) / sum(map(len, runs))
        for position, column in exit_columns(runs[0]).items():
            errors = [rows[epochs - 1][column] for rows in runs]
            spread = f" ± {curves.deviation(errors):.2f}" if len(errors) > 1 else ""
            mean = f"{sum(errors) / len(errors):.2f}{spread} %"
            row = (position, str(len(runs)), str(epochs), mean, f"{seconds:.1f}", label)
            for column_cells, cell in zip(cells.values(), row, strict=True):
                column_cells.append(cell)
    return table(cells)


if __name__ == "__main__":
    with one_line_errors("plot.py"):
        main(sys.argv[1:])
