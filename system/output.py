"""Standard output and standard error that last: they may be closed, full, of a narrow encoding, or read by nobody.

What is printed is for a person; a run must not end because that person looked away. And what comes from a file, such as
the name of a class, may not take over that person's terminal.
"""

import errno
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

LONGEST, LONGEST_MESSAGE = 200, 4000  # characters of one name, wherever it is from, and of a message
NAMED = 3  # names that are told one by one
BAR = re.compile(r"(\x1b\[A)+")  # what a progress bar moves up a line with, and writes by itself


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


def tell(text: object) -> None:
    """Say something beside what the program is asked for, on standard error."""
    print(text, file=sys.stderr, flush=True)


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


class Unread(Exception):
    """Nobody reads standard output any more."""


def make_lasting(outlives_output: bool) -> None:
    """Replace both streams by ones that write an escape for a character that their encoding lacks, and that never
    raise; but where the program does not outlive its output, standard output raises Unread, or OSError on a full disk.
    """
    sys.stdout, sys.stderr = _Lasting(sys.stdout, not outlives_output), _Lasting(sys.stderr, False)


def _harmless(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\r\t" else "�" for c in text)


class _Lasting:
    """A text stream that leads nowhere once it can no longer be written to, and then says so where that is news, or
    raises.

    A � takes the place of characters that could move a terminal's cursor, or do worse; with `verbatim`, which is for
    output that programs read, it does not.
    """

    verbatim = False

    def __init__(self, stream: TextIO | None, raises: bool) -> None:
        self._stream = stream or Path(os.devnull).open("w")  # noqa: SIM115 (it lasts as long as the program)
        self._raises, self._closed = raises, stream is None
        self._stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """As of any stream."""
        if self._closed and self._raises:
            raise OSError(errno.EBADF, "it is closed", "standard output")
        try:
            self._stream.write(text if self.verbatim or BAR.fullmatch(text) else _harmless(text))
            return len(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """As of any stream."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        """Let the file itself lead to nowhere, so that what is still in a buffer does no harm either."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if self._raises and isinstance(error, BrokenPipeError):
            raise Unread from error
        if self._raises:
            raise OSError(error.errno, error.strerror, "standard output") from error
        if self is sys.stdout and not isinstance(error, BrokenPipeError):
            tell(f"standard output: {error.strerror}; what is printed from here on is lost")
