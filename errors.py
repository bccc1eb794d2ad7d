"""What a user can get wrong: raised anywhere, printed once, as one line and an exit status."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A failure that its reader can mend; its text names what was given, what is legal and what to do."""

    status = 1


class UsageError(UserError):
    """A command line that can never work, whatever is on the disk."""

    status = 2


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Turn a `UserError` or an `OSError` into one line on standard error and the exit status."""
    try:
        yield
    except UserError as error:
        _stop(program, " ".join(str(error).split()), error.status)
    except OSError as error:
        _stop(program, " ".join(str(error).split()), UserError.status)


def _stop(program: str, text: str, status: int) -> None:
    print(f"{program}: error: {text}", file=sys.stderr)
    sys.exit(status)
