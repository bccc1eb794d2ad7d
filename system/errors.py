"""What a user can get wrong: raised anywhere, printed once, as one line and an exit status."""

import errno
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType

from system import output
from system.text import one_line


class UserError(ValueError):
    """A failure that its reader can mend; its text names what was given, what is legal and what to do. It is one line
    of printable characters, and not endless, whatever of it is from a file."""

    status = 1

    def __init__(self, text: object) -> None:
        super().__init__(one_line(text))


class UsageError(UserError):
    """A command line that can never work, whatever is on the disk."""

    status = 2


class Stopped(BaseException):
    """Work was stopped by a signal; `status`, 128 + its number, is what the process is to end with.

    Like KeyboardInterrupt it is no `Exception`: it may be raised anywhere, and is no failure of what it breaks off.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def signals(*names: str) -> list[signal.Signals]:
    """Those of these signals that the system has."""
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


# How a shortage of memory is told: by PyTorch, its libraries (cuDNN by finding no way to convolve that has room), the
# linker, Python.
SHORTAGES = re.compile(
    "(?i)out of memory|not enough memory|allocate memory|bad_alloc|alloc(ation)?_failed|map segment|start new thread"
    "|ENOMEM|CUBLAS_STATUS_NOT_INITIALIZED|returned NULL without setting an exception|unable to find an engine"
)
ENDING = signals("SIGTERM", "SIGHUP")
ADVICE = {
    errno.EMFILE: "raise the limit of open files (ulimit -n 4096), or lower --nThreads",
    errno.ENFILE: "the whole machine has too many files open; end other programs",
    errno.EROFS: "give a folder that can be written",
    errno.ENOMEM: "the memory is full; end other programs",
}


def is_shortage(error: BaseException) -> bool:
    """Whether an error says, in one of many ways, that memory is short."""
    if isinstance(error, OSError) and error.errno is not None:  # those of Pillow have none
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError):
        return True
    of_onnxruntime = type(error).__module__.startswith("onnxruntime")  # which has classes of its own
    may_say_so = of_onnxruntime or isinstance(error, OSError | RuntimeError | ImportError | SystemError)
    return may_say_so and bool(SHORTAGES.search(str(error)))


def reason(error: BaseException) -> str:
    """The first line of what an error says; its type, where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def out_of_memory(what: str, advice: str, error: BaseException) -> UserError:
    """What to raise for a shortage of memory: what the memory was for, what helps, and the first sentence of what was
    said of it; more would be about the insides of a library."""
    said = reason(error).partition(". ")[0]
    return UserError(f"out of memory {what}; {advice} ({said})")


@contextmanager
def memory_for(what: str, advice: str) -> Iterator[None]:
    """Turn a shortage of memory into the UserError of `out_of_memory`."""
    try:
        yield
    except Exception as error:
        if not is_shortage(error):
            raise
        raise out_of_memory(what, advice, error) from error


@contextmanager
def failures_as(text: Callable[[Exception], str]) -> Iterator[None]:
    """Turn what fails in here, in one of many ways, into a UserError with this text; but not a shortage of memory."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or is_shortage(error):
            raise
        raise UserError(text(error)) from error


@contextmanager
def one_line_errors(program: str, outlives_output: bool = False) -> Iterator[None]:
    """Turn a `UserError`, what the system refuses, a shortage of memory, a missing package, a Ctrl-C or another signal
    to end into one line on standard error and the exit status. A program that `outlives_output`, a training, goes on
    when nobody reads what it prints, and has an answer of its own to signals."""
    output.make_lasting(outlives_output)
    advice = "end other programs, or give fewer pictures or a smaller network"
    try:
        ending = nullcontext() if outlives_output else _ending()
        with ending, memory_for(f"in {program}", advice), _flushing():
            yield
    except output.Unread:  # its reader, such as `head`, has seen enough
        sys.exit(1)
    except UserError as error:
        _stop(program, f"error: {error}{_advice(error)}", error.status)
    except OSError as error:
        known = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error
        _stop(program, f"error: {known}{_advice(error)}", UserError.status)
    except ImportError as error:
        _stop(program, f"error: {error}; pip install -r requirements.txt installs what is needed", UserError.status)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends the process without a word
        _stop(program, "interrupted", 130)
    except Stopped as error:
        _stop(program, f"ended by {error}", error.status)


@contextmanager
def _flushing() -> Iterator[None]:
    """Write out at the end what was printed in here, even where the program ends here, as after `--help`. Where an
    error ends it, that error is told, and not what became of the output."""
    try:
        yield
    except BaseException as error:
        with nullcontext() if isinstance(error, SystemExit) else suppress(OSError, output.Unread):
            sys.stdout.flush()
        raise
    sys.stdout.flush()


@contextmanager
def _ending() -> Iterator[None]:
    """While open, signals that would end the process raise Stopped, so that files that are half written are taken away
    on the way out; each does so once, the second one ends it without a word."""

    def end(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Stopped(number)

    numbers = [number for number in ENDING if signal.getsignal(number) == signal.SIG_DFL]  # nohup ignores SIGHUP
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _advice(error: BaseException) -> str:
    """What helps where an error comes down to a limit of the system."""
    seen: BaseException | None = error
    while seen:
        if isinstance(seen, OSError) and seen.errno in ADVICE:
            return f"; {ADVICE[seen.errno]}"
        seen = seen.__cause__
    return ""


def _stop(program: str, text: object, status: int) -> None:
    print(f"{program}: {one_line(text)}", file=sys.stderr)
    sys.exit(status)
