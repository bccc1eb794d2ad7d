"""The log of a run: a row for each epoch, as CSV in `log.csv`, and in the training state."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from system import files
from system.errors import UserError
from system.strict import is_number

if TYPE_CHECKING:
    from models.metrics import Result

FILE = "log.csv"
MAX_SECONDS = 10**9  # of an epoch: thirty years
PARTS = ("training", "testing", "other")  # of the work of an epoch; `other` is saving and drawing
COURSE = ("learning_rate", "images_per_second", *(f"seconds_{part}" for part in PARTS))  # older logs lack these columns
TIMES = ("seconds", *COURSE[1:])  # columns that differ between runs of the same bits
EVALUATED = ("test_", "validation_")  # beginnings of the columns on pictures that are not trained on


def row(
    epoch: int,
    exits: Sequence[int],
    trained: "Result",
    evaluated_name: str,
    evaluated: "Result | None",
    learning_rate: float,
    pictures: int,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The row of an epoch (counted from 0) in the log: losses, errors in percent (None where it was not tested), the
    learning rate of its last step, training pictures a second, and the seconds that each of `PARTS` took."""
    tested = [evaluated.loss, *evaluated.errors] if evaluated else [None] * (1 + len(exits))
    learnt = (trained.loss, tested[0], *trained.errors, *tested[1:])
    pace = round(pictures / seconds["training"], 1) if seconds["training"] else 0.0
    parts = (round(seconds[part], 2) for part in PARTS)
    values = (epoch + 1, round(sum(seconds.values()), 1), *learnt, learning_rate, pace, *parts)
    return dict(zip(columns(exits, evaluated_name), values, strict=True))


def columns(exits: Sequence[int], evaluated_name: str) -> tuple[str, ...]:
    """The columns of the log of a run that is evaluated on `test` or `validation` pictures."""
    errors = (error_column(pictures, position) for pictures in ("train", evaluated_name) for position in exits)
    return ("epoch", "seconds", "train_loss", f"{evaluated_name}_loss", *errors, *COURSE)


def error_column(pictures: str, position: int) -> str:
    """The column with the errors of an exit on the `train`, `test` or `validation` pictures."""
    return f"{pictures}_error_{position}"


def evaluated_errors(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of a row with errors on pictures that are not trained on, shallow to deep."""
    return tuple(name for name in row if name.startswith(EVALUATED) and "_error_" in name)


def checked(rows: Any, expected: Sequence[str]) -> list[dict[str, Any]]:
    """Rows that `row` gave, from the first epoch on, with the columns `expected`; those of older versions with None in
    the columns that these did not have. Raises ValueError where they are none."""
    older = expected[: -len(COURSE)]
    if type(rows) is not list or not all(
        type(entry) is dict and tuple(entry) in (tuple(expected), tuple(older)) for entry in rows
    ):
        raise ValueError("the log is not one of rows with the columns of this run")
    rows = [{column: entry.get(column) for column in expected} for entry in rows]
    together = ([column for column in expected if column.startswith(EVALUATED)], COURSE)  # all of a kind or none
    for number, entry in enumerate(rows, 1):
        missing = {column for kind in together if all(entry[column] is None for column in kind) for column in kind}
        wrong = [column for column in expected if column not in missing and not _can_be(column, entry[column])]
        if wrong or type(entry["epoch"]) is not int or entry["epoch"] != number:
            raise ValueError(f"row {number} of the log cannot have such a value of {(wrong or ['epoch'])[0]}")
    return rows


def _can_be(column: str, value: Any) -> bool:
    """Whether a column of the log can have such a value, where it has any."""
    highest = 100 if "_error_" in column else MAX_SECONDS if column.startswith("seconds") else math.inf
    return is_number(value, -math.inf if column.endswith("_loss") else 0, highest)


def read(folder: Path) -> list[dict[str, float | None]]:
    """The rows of a run's log, None where an epoch was not tested or an older version wrote nothing; UserError where
    there are none, or where they are not numbers."""
    path = folder / FILE
    content = files.read(path)
    try:
        lines = csv.DictReader(io.StringIO(content.decode(), newline=""))
        rows = [{name: _cell(name, text) for name, text in entry.items()} for entry in lines]
    except (TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as the log of a run: {error}") from error
    wrong = [name for entry in rows for name, value in entry.items() if value is not None and not _can_be(name, value)]
    if wrong:
        what = "an error that is not a number from 0 to 100" if "_error_" in wrong[0] else f"an odd {wrong[0]}"
        raise UserError(f"{path} has {what}")
    if not rows or "seconds" not in rows[0] or not evaluated_errors(rows[0]):
        raise UserError(f"{path} holds no epoch of a run")
    if [entry.get("epoch") for entry in rows] != list(range(1, len(rows) + 1)):
        raise UserError(f"{path} does not hold every epoch of a run once, in order")
    return rows


def holds(folder: Path, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run's log has these rows; one that an older version wrote lacks the columns `COURSE`."""
    try:
        found = read(folder)
    except UserError:
        return False
    return [dict.fromkeys(COURSE) | entry for entry in found] == list(rows)


def _cell(name: str, text: str) -> float | None:
    """A number of the log. What an epoch that was not tested lacks may be missing, and what older versions lacked."""
    return None if text == "" and (name.startswith(EVALUATED) or name in COURSE) else float(text)
