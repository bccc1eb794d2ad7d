"""The programs as their users run them, and functions, in processes of their own."""

import itertools
import multiprocessing
import os
import pickle
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from system import world

PROJECT = Path(__file__).parent.parent

# New processes that have imported PyTorch and other packages, from a server that has not used them. Importing takes
# seconds, and hundreds of tests run a program.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch", "torchvision", "sklearn.datasets", "safetensors.torch", "matplotlib"])


def script(name, *arguments, cwd=None):
    """Run a script of the project as a user does, in this folder (None: the current one, which is the test's own);
    returns the finished process with its output as text."""
    argv = [str(PROJECT / name), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, stream) for stream in ("stdout", "stderr")]
        process = FORKS.Process(target=run_script, args=(argv, str(cwd or Path.cwd()), streams))
        process.start()
        process.join(300)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(argv, 300)
        return subprocess.CompletedProcess(argv, process.exitcode, *(stream.read_text("utf-8") for stream in streams))


def run_script(argv, cwd, streams):
    """In a new process: the script `argv[0]` with its own streams, in its own folder."""
    for number, stream in enumerate(streams, 1):
        descriptor = os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    os.chdir(cwd)
    sys.argv = argv
    sys.path.insert(0, str(PROJECT))
    runpy.run_path(argv[0], run_name="__main__")


def assert_one_line_error(process, status, *words):
    """The process ended with this status, nothing but one line on standard error, and these words in it."""
    assert process.returncode == status, process.stderr
    lines = [line for line in process.stderr.splitlines() if not line.startswith("no GPU found")]
    assert len(lines) == 1, process.stderr
    assert process.stdout == ""
    for word in words:
        assert word in lines[0]


def rows_of(text):
    """The rows of the first table that a program printed, to the next empty line: the cells of each by their titles."""
    lines = text.splitlines()
    rule = next(number for number, line in enumerate(lines) if re.fullmatch(r"-+(  -+)*", line))
    columns = [match.span() for match in re.finditer("-+", lines[rule])]
    titles, *rows = ([line[a:b].strip() for a, b in columns] for line in lines[rule - 1 :] if line != lines[rule])
    return [dict(zip(titles, row, strict=True)) for row in itertools.takewhile(any, rows)]


def error_line(cell):
    """What test.py prints of an error that a table has."""
    return f"error {cell.removesuffix(' %')}\n"


def tracked(*patterns):
    """The files of the project under version control, by their paths in it."""
    command = ["git", "-c", "safe.directory=*", "ls-files", *patterns]  # whoever they belong to
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.splitlines()


def children(process):
    """The processes that a process has started, and that are there."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # a thread may end meanwhile
            found += map(int, task.read_text().split())
    return found


def outliving(processes):
    """Those of the processes that still run after ten seconds; one closes its files a moment before it has ended."""
    for _ in range(100):
        left = [process for process in processes if alive(process)]
        if not left:
            break
        time.sleep(0.1)
    return left


def alive(process):
    """Whether a process runs; one that has ended and is not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


BEGUN = []  # processes of a test


def begin(command, **settings):
    """A process that is ended with the test."""
    BEGUN.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **settings))
    return BEGUN[-1]


def together(count, work, *arguments, joined=True):
    """What `work(*arguments)` returns in each of so many processes, in the order of their ranks. They are joined, or
    join themselves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with tempfile.TemporaryDirectory() as folder:
        answers = [Path(folder, str(rank)) for rank in range(count)]
        processes = [
            FORKS.Process(
                target=join, args=({**environment, "RANK": rank, "LOCAL_RANK": rank}, answer, work, arguments, joined)
            )
            for rank, answer in enumerate(answers)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        late = [process for process in processes if process.exitcode is None]
        for process in late:
            process.kill()
        found = [pickle.loads(answer.read_bytes()) for answer in answers if answer.exists()]
        for failure in (one for one in found if isinstance(one, BaseException)):
            raise failure  # for which the others may still be waiting
        assert not late
        return found


def join(environment, answer, work, arguments, joined):
    """In a new process: take part in what `together` does, as torchrun would have it."""
    os.environ.update({name: str(value) for name, value in environment.items()}, TORCHELASTIC_RUN_ID="tests")
    try:
        with world.joined() if joined else nullcontext():
            found = work(*arguments)
    except BaseException as error:
        error.add_note(traceback.format_exc())
        found = error
    answer.write_bytes(pickle.dumps(found))


def deprived(command):
    """A command as for a user who is not root, whom the rights of files concern."""
    if os.geteuid() != 0:
        return command
    if not shutil.which("setpriv"):
        pytest.skip("root reads and writes everything, unless setpriv takes that right")
    rights = "-dac_override,-dac_read_search"
    without = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
    if subprocess.run([*without, "true"], capture_output=True).returncode:
        pytest.skip("setpriv may not take rights away here")
    return [*without, *command]


def signal_during(monkeypatch, owner, method, call, number=signal.SIGTERM):
    """Let this process get a signal in the given call, counted from 1, of a method or function."""
    real, calls = getattr(owner, method), itertools.count(1)

    def signalled(*arguments, **options):
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return real(*arguments, **options)

    monkeypatch.setattr(owner, method, signalled)
