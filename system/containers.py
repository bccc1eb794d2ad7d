"""The control groups by which Linux limits containers and batch jobs."""

from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def groups(controller: str) -> Iterator[Path]:
    """The groups that this process is in, from the innermost out: those of version 2, and of version 1 those of this
    controller. Not every one of them is there; a container sees those within itself."""
    try:
        lines = [line.split(":", 2) for line in OWN.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in lines:
        if controllers and controller not in controllers.split(","):
            continue
        root = GROUPS / controller if controllers else GROUPS
        group = root / path.strip("/")
        yield group
        yield from (parent for parent in group.parents if parent.is_relative_to(root))
