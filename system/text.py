"""Names and messages as they may be printed: what comes from a file, such as the name of a class, may not take over a
person's terminal, nor a shell."""

import os
import shlex
from collections.abc import Sequence

LONGEST, LONGEST_MESSAGE = 200, 4000  # characters of one name, wherever it is from, and of a message
NAMED = 3  # names that are told one by one


def printable(text: object, longest: int = LONGEST) -> str:
    """What a name, or whatever else comes from a file, is printed as: a � in place of each character that a terminal
    cannot show, or that would move its cursor or break the line, and the end cut off where it is very long."""
    try:
        start = str(text)[: longest + 1]
    except (ValueError, RecursionError):  # a number of endless digits, endless nesting
        start = f"a {type(text).__name__} without end"
    start = start if len(start) <= longest else f"{start[: longest - 1]}…"
    return "".join(character if character.isprintable() else "�" for character in start)


def some_of(names: Sequence[object]) -> str:
    """Some of the names, of which there may be many."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(printable, names[:NAMED])) + more


def one_line(text: object) -> str:
    """A message, which may hold several names, as one printable line that is not endless."""
    return printable(" ".join(line.strip() for line in str(text).splitlines()), LONGEST_MESSAGE)


def quoted(text: str) -> str:
    """A word for a command line that works when it is pasted into a shell, on one line whatever is in it."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = "".join(_escaped(c) if c in "\\'" or not c.isprintable() else c for c in text)
    return f"$'{escaped}'"  # of bash, zsh, ksh and POSIX 2024


def _escaped(character: str) -> str:
    if ord(character) < 128:
        return f"\\x{ord(character):02x}"
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
