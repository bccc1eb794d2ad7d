"""What comes from files, taken strictly: numbers of a kind and a range, JSON that says one thing."""

import json
import math
import sys
from typing import Any

DIGITS = 40  # of a number in JSON; those of a program's own files have 20 at most


def is_number(value: object, low: float, high: float, *kinds: type) -> bool:
    """Whether this is a number of one of `kinds` (none given: int or float; never a bool) from `low` to `high`. Neither
    NaN nor an infinity is one, nor an integer that no float comes near."""
    return type(value) in (kinds or (int, float)) and low <= value <= high and abs(value) <= sys.float_info.max


def loads(text: str | bytes) -> Any:
    """What JSON says. Raises ValueError for what is no JSON, and for what would be read in more than one way or not at
    all elsewhere: a name twice in an object, NaN, an infinity, a number of endless digits, endless nesting."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_float=_real, parse_constant=_real)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def dumps(value: Any) -> bytes:
    """JSON as a file that people read, too."""
    return (json.dumps(value, indent=2) + "\n").encode()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it has one name twice")
    return found


def _integer(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"it has a number of {len(text)} digits")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it has a number that is not finite: {text[:DIGITS]}")
    return value
