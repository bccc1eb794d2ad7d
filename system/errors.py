"""What a user can get wrong: raised anywhere, printed once, as one line and an exit status."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from system import output


class UserError(ValueError):
    """A failure that its reader can mend; its text names what was given, what is legal and what to do."""

    status = 1


class UsageError(UserError):
    """A command line that can never work, whatever is on the disk."""

    status = 2


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Turn a `UserError`, an `OSError` or a Ctrl-C into one line on standard error and the exit status.

    The streams that the program prints to are made to last.
    """
    output.make_last()
    try:
        yield
    except UserError as error:
        _stop(program, f"error: {error}", error.status)
    except OSError as error:
        known = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error
        _stop(program, f"error: {known}", UserError.status)
    except KeyboardInterrupt:
        _stop(program, "interrupted", 130)


def _stop(program: str, text: str, status: int) -> None:
    print(f"{program}: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(status)
