"""What a person reads of a run: a line per epoch, the table of exits. Imports no torch before it counts costs."""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from formats.log_file import error_column
from models.names import Configuration
from system.text import printable


def epoch_line(row: Mapping[str, Any], epochs: int, exits: Sequence[int], evaluated_name: str) -> str:
    """What one of so many epochs gave, from its row of the log: its seconds, the mean loss, and each exit's error in
    percent on the training pictures and, if it was tested, on the `test` or `validation` pictures."""

    def errors(pictures: str) -> str:
        return f"{pictures} error {exit_errors(exits, [row[error_column(pictures, position)] for position in exits])}"

    epoch = f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}"
    trained = f"{epoch}  {row['seconds']:.1f} s  loss {row['train_loss']:.3f}  {errors('train')}"
    return trained if row[f"{evaluated_name}_loss"] is None else f"{trained}  {errors(evaluated_name)}"


def trainings(before: Sequence[Mapping[str, Any]]) -> str:
    """The trainings that a run's weights had behind them when it began: `7 epochs on CIFAR10, then 1 epoch on A`."""
    return ", then ".join(f"{epochs(one['epochs'])} on {printable(one['dataset'])}" for one in before)


def epochs(count: int) -> str:
    """A number of epochs: `1 epoch`."""
    return f"{count} epoch{'s' * (count != 1)}"


def exit_errors(exits: Sequence[int], errors: Sequence[float]) -> str:
    """Each exit's error in percent after its position: `19: 4.81 26: 3.91`."""
    return " ".join(f"{position}: {error:.2f}" for position, error in zip(exits, errors, strict=True))


def exit_table(
    configuration: Configuration,
    classes: int,
    side: int,
    errors: Mapping[str, Sequence[float]],
    files: Mapping[int, Path],
) -> str:
    """A row for each exit of `files`: what its standalone model costs on a picture of `side` pixels, its errors in
    percent, each under its title, and its file."""
    from models.networks import cost

    costs = [cost(configuration, classes, position, side) for position in files]
    columns = {
        "exit": [str(position) for position in files],
        "parameters": [amount(price.parameters) for price in costs],
        "multiply-adds": [amount(price.macs) for price in costs],
        **{title: [percent(error) for error in of_exits] for title, of_exits in errors.items()},
        "file": [str(path) for path in files.values()],
    }
    return table(columns, words={"file"})


def as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows with the same columns as CSV; None is left empty."""
    text = io.StringIO()
    lines = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    lines.writeheader()
    lines.writerows(rows)
    return text.getvalue().encode()


def percent(value: float | None) -> str:
    """An error as it is written in tables; nothing for None."""
    return "" if value is None else f"{value:.2f} %"


def table(columns: Mapping[str, Sequence[str]], words: Collection[str] = ()) -> str:
    """Columns of text under their titles, flush right; those named in `words` flush left. Columns without any text are
    left out. A character that a terminal cannot show, or that would break the line, becomes a �."""
    drawn = [
        _column(title, [printable(cell) for cell in cells], left=title in words)
        for title, cells in columns.items()
        if any(cells)
    ]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*drawn, strict=True))


def _column(title: str, cells: Sequence[str], left: bool) -> list[str]:
    from tqdm.utils import disp_len  # columns on a terminal: a Chinese character takes two; not needed for --help

    width = max(map(disp_len, [title, *cells]))
    spaces = {text: " " * (width - disp_len(text)) for text in (title, *cells)}
    lines = [text + spaces[text] if left else spaces[text] + text for text in (title, *cells)]
    return [lines[0], "-" * width, *lines[1:]]


def amount(count: int) -> str:
    """A count in three digits, as people read it: 970, 33.3 k, 853 k, 125 M, 5.24 G."""
    if count < 1000:
        return str(count)
    rounded = round(float(f"{count:.3g}"))
    thousands = min((len(str(rounded)) - 1) // 3, 4)
    return f"{rounded / 1000**thousands:#.3g}".rstrip(".") + f" {'kMGT'[thousands - 1]}"
