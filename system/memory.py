"""How much memory there is, and one word about it before much of it is taken."""

import os
from collections.abc import Iterator
from pathlib import Path

from system.containers import groups
from system.errors import UserError
from system.output import tell
from system.text import printable

MUCH = 1e9  # bytes
LIMITS = (  # control groups of version 2 and 1: the files of what may be used and of what is; how much of it is cache
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def announce(what: str, size: int, advice: str) -> None:
    """Say on standard error that `what` takes `size` bytes, if that is much. Raises UserError, with the advice, where
    it is more than there is."""
    there, what = free(), printable(what)
    if there is not None and size > there:
        raise UserError(f"{what} take {_gigabytes(size)} of memory, of which {_gigabytes(there)} are free; {advice}")
    if size >= MUCH:
        tell(f"{what}: {_gigabytes(size)} of memory")


def free() -> int | None:
    """The bytes of memory that this process may still take; None where the system does not say."""
    return min(_limits(), default=None)


def _limits() -> Iterator[int]:
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        yield 1024 * int(fields["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        if "SC_AVPHYS_PAGES" in os.sysconf_names:
            yield os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for group in groups("memory"):
        for limit, used, cached in LIMITS:
            try:
                statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                unused = int((group / limit).read_text()) - int((group / used).read_text())
                yield unused + int(statistics[cached])  # cached files make room
            except (OSError, KeyError, ValueError):  # no such group, or one without a limit, which is the word max
                continue


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
