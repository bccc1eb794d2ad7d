"""Draw several runs into one picture, and print mean and standard deviation over those of one configuration.

python plot.py runs/*/CIFAR10-AuxResNet-26-2
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoints
import opts
from reports import plots
from reports.tables import table
from system.errors import UserError, one_line_errors

Rows = list[dict[str, float]]


@dataclass(frozen=True)
class Group:
    """Runs of one configuration: how it differs from the others, and the logs of its runs."""

    number: int
    differs: str
    runs: list[Rows]

    def columns(self) -> dict[str, str]:
        """The columns with errors on held-out pictures, by the exits' positions, shallow to deep."""
        return exit_columns(self.runs[0])


def main(argv: Sequence[str]) -> None:
    """Read the runs, group them, draw, print."""
    options = opts.parse_plot(argv)
    folders = {Path(run).resolve(): Path(run) for run in options.runs}  # each once
    groups = grouped(list(read(folders.values())))
    lines = [
        plots.curve(f"{group.number}, exit {position}", group.runs, column)
        for group in groups
        for position, column in group.columns().items()
    ]
    checkpoints.write(Path(options.out), plots.draw("error on held-out pictures, by run and exit", lines))
    print(f"{summary(groups)}\n\npicture: {options.out}")


def read(folders: Iterable[Path]) -> Iterator[tuple[dict[str, Any], Rows]]:
    """Options and log of each run; those that have none yet are named and left out, unless all are such."""
    problems, found = [], False
    for folder in folders:
        try:
            yield opts.recorded(folder), checkpoints.read_log(folder)
            found = True
        except UserError as error:
            problems.append(error)
    if not found:
        raise problems[0]
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)


def exit_columns(rows: Rows) -> dict[str, str]:
    """The columns of a log with errors on held-out pictures, by the exits' positions, shallow to deep."""
    return {name.rpartition("_")[2]: name for name in rows[0] if name.startswith(("test_error_", "validation_error_"))}


def grouped(runs: Sequence[tuple[dict[str, Any], Rows]]) -> list[Group]:
    """The runs by configuration and exits; what may differ within a group is seed, folders and machine."""
    kinds = [{name: value for name, value in of.items() if name not in opts.FREE_BETWEEN_RUNS} for of, _ in runs]
    differing = [name for name in kinds[0] if any(kind[name] != kinds[0][name] for kind in kinds)]
    found: dict[tuple[str, tuple[str, ...]], list[Rows]] = {}
    for kind, (_, rows) in zip(kinds, runs, strict=True):
        differs = opts.written({name: kind[name] for name in differing})
        found.setdefault((differs, tuple(exit_columns(rows))), []).append(rows)
    return [Group(number, differs, logs) for number, ((differs, _), logs) in enumerate(found.items(), 1)]


def summary(groups: Sequence[Group]) -> str:
    """A row for each configuration and exit: the error after the last epoch that was tested in all its runs."""
    titles = ("nr", "exit", "runs", "epochs", "error", "s an epoch", "what differs")
    return table(dict(zip(titles, map(list, zip(*rows(groups), strict=True)), strict=True)))


def rows(groups: Sequence[Group]) -> Iterator[tuple[str, ...]]:
    """The cells of `summary`, row by row."""
    for group in groups:
        seconds = [row["seconds"] for log in group.runs for row in log]
        pace = f"{sum(seconds) / len(seconds):.1f}"
        for position, column in group.columns().items():
            line = plots.curve("", group.runs, column)
            spread = f" ± {line.spread[-1]:.2f}" if line.epochs and len(group.runs) > 1 else ""
            error, epochs = (f"{line.mean[-1]:.2f}{spread} %", line.epochs[-1]) if line.epochs else ("none yet", 0)
            yield str(group.number), position, str(len(group.runs)), str(epochs), error, pace, group.differs


if __name__ == "__main__":
    with one_line_errors("plot.py"):
        main(sys.argv[1:])
