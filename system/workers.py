"""Processes that work ahead of this one and hand over through pipes what they made, in order.

They share no memory and no locks with this process, as those of PyTorch's DataLoader do: containers have little shared
memory, and a lock that a stopped or killed process holds is waited for without end. All that can happen to a worker is
that its pipe ends.
"""

import ctypes
import itertools
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from typing import Any

import torch

from system.errors import UserError
from system.output import tell
from system.stopping import unheard

PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class WorkerDied(UserError):
    """A worker ended before its work did; the text names the process and tells what became of it."""


def crew(function: Callable[[Any], Any], count: int) -> "Workers":
    """So many workers; none in a daemon, which may start no processes; and none where the system has no room for them,
    which is said."""
    count = 0 if multiprocessing.current_process().daemon else count
    if count and sys.stdout:
        sys.stdout.flush()  # as a process that starts does; what fails then is the output, and no lack of room
    try:
        return Workers(function, count)
    except OSError as error:
        tell(f"no worker processes ({error.strerror}): this one does their work")
        return Workers(function, 0)


class Workers:
    """`count` processes that compute `function(item)`, ahead of what was asked for; this process, if 0.

    Closed, they end at once, even those that are stopped. Raises OSError where the system has no room for them.
    """

    def __init__(self, function: Callable[[Any], Any], count: int) -> None:
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        self._function = function
        self._workers: list[tuple[multiprocessing.Process, Connection]] = []
        # Where nobody closes them, they end before multiprocessing sends them a SIGTERM, of which they would not hear.
        Finalize(self, _end, args=(self._workers,), exitpriority=0)
        try:
            for _ in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(function, theirs, os.getpid()), daemon=True)
                self._workers.append((process, ours))
                with theirs, unheard():
                    process.start()
        except BaseException:
            self.close()
            raise

    def map(self, items: Iterable[Any], ahead: int = 1) -> Iterator[Any]:
        """What the workers make of the items, in their order; to be called once. Each makes up to `ahead` items before
        they are asked for, as far as its pipe holds what it makes. With `ahead` above 1 the items have to be small, so
        that the pipe holds all of them. Raises WorkerDied, or what the function raised."""
        if not self._workers:
            yield from map(self._function, items)
            return
        items, busy = iter(items), deque()
        for worker, item in zip(self._workers * ahead, items, strict=False):
            busy.append(_given(worker, item))
        while busy:
            worker = busy.popleft()
            result = _taken(*worker)
            busy.extend(_given(worker, item) for item in itertools.islice(items, 1))
            yield result

    def close(self) -> None:
        """End the workers; what breaks that off does not keep them from ending."""
        _end(self._workers)


def _end(workers: list[tuple[multiprocessing.Process, Connection]]) -> None:
    started = [process for process, _ in workers if process.pid]
    for process in started:
        process.kill()
    for process in started:
        process.join()
    for _, pipe in workers:
        pipe.close()


def _given(worker: tuple[multiprocessing.Process, Connection], item: Any) -> tuple[multiprocessing.Process, Connection]:
    """The worker, after it was given an item; it waits for one, so that this does not wait for it."""
    with suppress(OSError):  # it died, which is found when its result is taken
        worker[1].send(item)
    return worker


def _taken(process: multiprocessing.Process, pipe: Connection) -> Any:
    """The next result of a worker."""
    try:
        result, error = pipe.recv()
    except (EOFError, OSError) as ended:
        process.join(1)
        code = process.exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with status {code}"
        raise WorkerDied(f"a worker died: process {process.pid} {how}") from ended
    if error:
        raise error
    return result


def _serve(function: Callable[[Any], Any], pipe: Connection, parent: int) -> None:
    """In a worker: answer items until there are no more, or the parent is gone."""
    if sys.platform == "linux":  # elsewhere it goes when its pipe does
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
    torch.set_num_threads(1)  # the parent's other threads are not here; the workers are side by side
    with suppress(EOFError, OSError):
        while True:
            item = pipe.recv()
            try:
                answer = ForkingPickler.dumps((function(item), None))
            except Exception as error:
                answer = ForkingPickler.dumps((None, error))
            pipe.send_bytes(answer)
