"""Standard output and standard error that last: they may be closed, full, of a narrow encoding, or read by nobody.

What is printed is for a person; a run must not end because that person looked away.
"""

import errno
import os
import re
import sys
from pathlib import Path
from typing import Any, TextIO

BAR = re.compile(r"(\x1b\[A)+")  # what a progress bar moves up a line with, and writes by itself


def tell(text: object) -> None:
    """Say something beside what the program is asked for, on standard error."""
    print(text, file=sys.stderr, flush=True)


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
