"""The classes of pictures as text, CSV or JSON, piece by piece, so that any number of pictures can be told about."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence

from system.output import printable

Answer = tuple[str, Sequence[tuple[str, float]]]  # the path of a picture; classes and probabilities, likeliest first


def as_text(answers: Iterable[Answer]) -> Iterator[str]:
    """A line for each picture: `cat.png  cat 0.9871  dog 0.0102`."""
    for path, found in answers:
        yield "  ".join([path, *(f"{printable(name)} {probability:.4f}" for name, probability in found)]) + "\n"


def as_csv(answers: Iterable[Answer]) -> Iterator[str]:
    """A row for each picture and class; the likeliest class of a picture has rank 1."""
    yield "path,rank,class,probability\n"
    for path, found in answers:
        text = io.StringIO()
        rows = [(path, rank, name, f"{probability:.6f}") for rank, (name, probability) in enumerate(found, 1)]
        csv.writer(text, lineterminator="\n").writerows(rows)
        yield text.getvalue()


def as_json(answers: Iterable[Answer]) -> Iterator[str]:
    """One array, with a line for each picture."""
    yield "["
    separator = "\n"
    for path, found in answers:
        classes = [{"class": name, "probability": round(probability, 6)} for name, probability in found]
        yield separator + json.dumps({"path": path, "classes": classes})
        separator = ",\n"
    yield "\n]\n"


FORMATS = {"text": as_text, "csv": as_csv, "json": as_json}
