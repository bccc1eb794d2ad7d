"""The classes of pictures as text, CSV or JSON, piece by piece, so that any number of pictures can be told about."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from system.text import printable


class Answer(NamedTuple):
    """A picture's likeliest classes, likeliest first, each with its probability; and the position of the exit that says
    so."""

    path: str
    found: Sequence[tuple[str, float]]
    position: int


def as_text(answers: Iterable[Answer], with_exit: bool) -> Iterator[str]:
    """A line for each picture: `cat.png  cat 0.9871  dog 0.0102`, with its exit also `exit 45`."""
    for path, found, position in answers:
        words = [path, *(f"{printable(name)} {probability:.4f}" for name, probability in found)]
        yield "  ".join([*words, f"exit {position}"] if with_exit else words) + "\n"


def as_csv(answers: Iterable[Answer], with_exit: bool) -> Iterator[str]:
    """A row for each picture and class; the likeliest class of a picture has rank 1."""
    yield "path,rank,class,probability" + ",exit" * with_exit + "\n"
    for path, found, position in answers:
        last = (position,) * with_exit
        for rank, (name, probability) in enumerate(found, 1):
            yield _row(path, rank, name, f"{probability:.6f}", *last)


def _row(*values: object) -> str:
    """The line from which `csv.reader` reads these values. Python 3.11 quotes a carriage return in one of them only
    where lines end in one, too."""
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue().removesuffix("\r\n") + "\n"


def as_json(answers: Iterable[Answer], with_exit: bool) -> Iterator[str]:
    """One array, with a line for each picture."""
    yield "["
    separator = "\n"
    for path, found, position in answers:
        classes = [{"class": name, "probability": round(probability, 6)} for name, probability in found]
        yield separator + json.dumps({"path": path, "classes": classes} | ({"exit": position} if with_exit else {}))
        separator = ",\n"
    yield "\n]\n"


FORMATS = {"text": as_text, "csv": as_csv, "json": as_json}
