"""What a person sees of a run: the progress bar, a line per epoch, the table of exits."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from inference.evaluation import Result
from models.auxresnet import cost
from models.names import Configuration


class Progress:
    """A bar over all training pictures of a run, of which `done` are behind; on standard error, on a terminal only."""

    def __init__(self, pictures: int, epochs: int, done: int, exits: Sequence[int]) -> None:
        self.exits, self.epochs = exits, epochs
        self.bar = tqdm(
            total=pictures * epochs,
            initial=done,
            unit="img",
            leave=False,
            disable=None,
            dynamic_ncols=True,
        )

    def epoch(self, epoch: int, what: str) -> None:
        """Name the epoch (counted from 0) and what is being done."""
        self.bar.set_description(f"epoch {epoch + 1}/{self.epochs} {what}")

    def step(self, pictures: int, result: Result | None) -> None:
        """Move on by a batch; show the result so far, if there is a new one."""
        if result:
            self.bar.set_postfix_str(f"loss {result.loss:.3f}, error {_errors(self.exits, result)}", refresh=False)
        self.bar.update(pictures)

    def line(self, text: str) -> None:
        """Print a line on standard output, above the bar."""
        self.bar.write(text, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()


def epoch_line(
    epoch: int, epochs: int, seconds: float, exits: Sequence[int], train: Result, name: str, held_out: Result | None
) -> str:
    """What one epoch (counted from 0) gave: the mean loss, and each exit's error in percent, if it was tested."""
    trained = (
        f"epoch {epoch + 1:>{len(str(epochs))}}/{epochs}  {seconds:.1f} s  loss {train.loss:.3f}  "
        f"train error {_errors(exits, train)}"
    )
    return f"{trained}  {name} error {_errors(exits, held_out)}" if held_out else trained


def _errors(exits: Sequence[int], result: Result) -> str:
    return " ".join(f"{position}: {error:.2f}" for position, error in zip(exits, result.errors, strict=True))


def exit_table(
    configuration: Configuration,
    classes: int,
    errors: Sequence[float],
    files: Mapping[int, Path],
    latencies: Sequence[float] = (),
) -> str:
    """A row for each exit of `files`: what its standalone model costs, with `latencies` the milliseconds that it
    takes for one picture, its test error in percent, its file."""
    costs = [cost(configuration, classes, position) for position in files]
    columns = {
        "exit": [str(position) for position in files],
        "parameters": [_millions(price.parameters) for price in costs],
        "multiply-adds": [_millions(price.macs) for price in costs],
        "ms a picture": [f"{milliseconds:.2f}" for milliseconds in latencies],
        "test error": [f"{error:.2f} %" for error in errors],
        "file": [str(path) for path in files.values()],
    }
    return table({title: cells for title, cells in columns.items() if cells})


def table(columns: Mapping[str, Sequence[str]]) -> str:
    """Columns of text under their titles, all but the last flush right."""
    widths = [max(map(len, [title, *cells])) for title, cells in columns.items()]
    rows = [list(columns), ["-" * width for width in widths], *map(list, zip(*columns.values(), strict=True))]
    return "\n".join("  ".join([*map(str.rjust, row[:-1], widths), row[-1]]) for row in rows)


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"
