"""Draw several runs into one plot, and print mean and standard deviation over those of one configuration.

python plot.py runs/*/CIFAR10-AuxResNet-26-2
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import opts
from datasets import catalog
from formats import log_file
from models import names
from options import stored
from options.listing import written
from reports import destination, plots
from reports.plots import Curve
from reports.tables import table
from system.errors import UserError, one_line_errors
from system.files import real, write
from system.output import tell

NAMED = ("depth", "nOutputs", "widen")  # options that the name of a network tells
HALF_NAMED = ("data", "dropout", "exits", "shortcutType")  # those that names of networks and data sets may leave open


@dataclass(frozen=True)
class Run:
    """A run: its network and its data set by name, the options that shaped its result, its log."""

    network: str
    data: str
    options: Mapping[str, Any]
    log: plots.Rows

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the log with errors on test or validation pictures, shallow to deep."""
        return log_file.evaluated_errors(self.log[0])


@dataclass(frozen=True)
class Group:
    """Runs of one configuration: their network and data set, what sets them apart from the others, their logs."""

    number: int
    network: str
    data: str
    differs: str
    columns: Sequence[str]
    logs: Sequence[plots.Rows]

    @property
    def subject(self) -> str:
        """Network and data set."""
        return f"{self.network} on {self.data}"

    @property
    def error(self) -> str:
        """Which error was measured: `test error` or `validation error`."""
        return f"{self.columns[0].partition('_')[0]} error"

    def curves(self) -> list[Curve]:
        """The mean errors of each exit, shallow to deep."""
        return [plots.averaged(f"exit {name.rpartition('_')[2]}", self.logs, name) for name in self.columns]


def main(argv: Sequence[str]) -> None:
    """Read the runs, group them, draw, print."""
    options = opts.PLOT.parsed(argv)
    destination.check(Path(options.out))
    folders = {real(Path(run)): Path(run) for run in options.runs}  # each once
    groups = grouped(list(read(folders.values())))
    try:
        write(Path(options.out), draw(groups))
    finally:  # the table needs no plot
        print(summary(groups))
    print(f"\nplot: {options.out}")


def read(folders: Iterable[Path]) -> Iterator[Run]:
    """The runs; those that have no options or no log yet are named and left out, unless all are such."""
    problems, found = [], False
    for folder in folders:
        try:
            yield read_run(folder)
            found = True
        except UserError as error:
            problems.append(error)
    if not found:
        raise problems[0]
    for problem in problems:
        tell(f"left out: {problem}")


def read_run(folder: Path) -> Run:
    """A run from its folder, with the exits and the shortcut that its network has where its options leave them open."""
    options = stored.recorded(folder, opts.MAIN)

    try:
        configuration = names.of_options(options)
        data = catalog.label(options["data"])
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / stored.FILE} does not hold the options of a run: {error}") from error
    if options["data"] not in catalog.NAMES:
        options["data"] = str(real(Path(options["data"])))  # in one spelling
    options |= names.to_options(configuration)
    options["trainSize"] = options["trainSize"] or "all"
    options["retrain"] = real(Path(options["retrain"])).name if options["retrain"] else "none"
    shaping = {name: value for name, value in options.items() if name not in (*NAMED, *opts.FREE_BETWEEN_RUNS)}
    return Run(configuration.name, data, shaping, log_file.read(folder))


def grouped(runs: Sequence[Run]) -> list[Group]:
    """The runs by network, data set, options and exits; test errors and validation errors stay apart. A copy of a run,
    which has its log to the last second, says nothing new, so it does not count."""
    found: dict[tuple[str, str, str, tuple[str, ...]], list[plots.Rows]] = {}
    for run in runs:
        key = (run.network, run.data, written(differing(run, runs)), run.columns)
        logs = found.setdefault(key, [])
        if run.log not in logs:
            logs.append(run.log)
    return [Group(number, *key, logs) for number, (key, logs) in enumerate(found.items(), 1)]


def differing(run: Run, runs: Sequence[Run]) -> dict[str, Any]:
    """The options in which the run differs from another. Those that names leave open count among runs of one name."""
    namesakes = [other for other in runs if (other.network, other.data) == (run.network, run.data)]
    return {
        name: value
        for name, value in run.options.items()
        if any(other.options[name] != value for other in (namesakes if name in HALF_NAMED else runs))
    }


def draw(groups: Sequence[Group]) -> bytes:
    """The plot: what all groups share is in its title, the rest in its legend."""
    subjects = {group.subject for group in groups}
    headings = {}
    for group in groups:
        count = f"mean of {len(group.logs)} runs" if len(group.logs) > 1 else ""
        parts = (group.subject if len(subjects) > 1 else "", group.error, group.differs, count)
        number = f"{group.number}: " if len(groups) > 1 else ""
        headings[number + ", ".join(filter(None, parts))] = group.curves()
    return plots.draw_groups("error of each exit" if len(subjects) > 1 else subjects.pop(), headings)


def summary(groups: Sequence[Group]) -> str:
    """A row for each configuration and exit: the error after the last epoch that was tested in all its runs."""
    cells = list(rows(groups))
    titles = ("nr", "exit", "runs", "epochs", "test error", "validation error", "s an epoch")
    words = ("network", "data set", "what differs")
    return table({title: [row.get(title, "") for row in cells] for title in (*titles, *words)}, words)


def rows(groups: Sequence[Group]) -> Iterator[dict[str, str]]:
    """The cells of `summary` by title, row by row."""
    for group in groups:
        seconds = [row["seconds"] for log in group.logs for row in log]
        for curve in group.curves():
            yield {
                "nr": str(group.number),
                "exit": curve.label.removeprefix("exit "),
                "runs": str(curve.runs),
                "epochs": str(curve.epochs[-1] if curve.epochs else 0),
                group.error: curve.last,
                "s an epoch": f"{sum(seconds) / len(seconds):.1f}",
                "network": group.network,
                "data set": group.data,
                "what differs": group.differs,
            }


if __name__ == "__main__":
    with one_line_errors("plot.py"):
        main(sys.argv[1:])
