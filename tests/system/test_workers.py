"""Workers: the same results in the same order, and nothing that becomes of them is waited for."""

import errno
import multiprocessing
import multiprocessing.process
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest

from programs import PROJECT, signal_during
from system.workers import WorkerDied, Workers, crew


def square(number):
    return os.getpid(), number * number


def test_results_come_in_the_order_of_the_items_from_as_many_processes():
    with closing(Workers(square, 3)) as crew:
        found = list(crew.map(range(20)))
    assert [value for _, value in found] == [number * number for number in range(20)]
    assert len({process for process, _ in found}) == 3
    assert not {process for process, _ in found} & {os.getpid()}


def test_without_workers_this_process_computes():
    with closing(Workers(square, 0)) as crew:
        assert list(crew.map([3])) == [(os.getpid(), 9)]


def test_large_items_and_results_do_not_wait_for_each_other():
    with closing(Workers(lambda item: item, 2)) as crew:
        for sent, received in zip(range(6), crew.map(np.full(2_000_000, n) for n in range(6)), strict=True):
            assert (received == sent).all()


def test_what_a_worker_raises_is_raised_here():
    with closing(Workers(lambda item: item.missing, 1)) as crew, pytest.raises(AttributeError, match="missing"):
        next(crew.map([1]))
    with closing(Workers(os.listdir, 1)) as crew, pytest.raises(FileNotFoundError):
        next(crew.map(["no such folder"]))


def test_what_cannot_be_handed_over_is_raised_here():
    with closing(Workers(lambda _: lambda: None, 1)) as workers, pytest.raises(Exception, match="pickle"):
        next(workers.map([1]))


def test_a_worker_that_dies_is_named_with_its_signal():
    with closing(Workers(lambda _: os.kill(os.getpid(), signal.SIGKILL), 1)) as crew:
        with pytest.raises(WorkerDied, match=r"process \d+ was killed by SIGKILL"):
            next(crew.map([1]))
        with pytest.raises(WorkerDied):
            next(crew.map([1]))


def test_stopped_workers_end_when_they_are_closed():
    crew = Workers(square, 2)
    processes = [process for process, _ in crew.map(range(2))]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    crew.close()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_workers_end_though_closing_them_is_broken_off(monkeypatch):
    """As by a second signal."""
    crew = Workers(square, 2)
    processes = [process for process, _ in crew.map(range(2))]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        signal_during(patch, multiprocessing.process.BaseProcess, "join", 1, signal.SIGINT)
        crew.close()
    crew.close()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_signals_do_not_reach_workers():
    def patient(seconds):
        time.sleep(seconds)
        return os.getpid()

    with closing(Workers(patient, 1)) as crew:
        (process,) = crew.map([0])
        results = crew.map([0.2])
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(process, number)
        assert next(results) == process


def test_a_daemon_does_the_work_itself():
    """As the worker of another program, which may start no processes."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(squares_by_two) == [0, 1, 4]


def squares_by_two():
    with closing(crew(square, 2)) as workers:
        found = list(workers.map(range(3)))
    assert {process for process, _ in found} == {os.getpid()}
    return [value for _, value in found]


def test_a_program_that_closes_no_workers_ends_all_the_same():
    code = "from system.workers import Workers; crew = Workers(abs, 2); print(list(crew.map([-1, -2])))"
    process = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stdout, process.stderr) == (0, "[1, 2]\n", "")


def test_where_one_process_cannot_be_started_the_others_end(monkeypatch):
    started = []

    def start(self):
        if started:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        real(self)
        started.append(self)

    real = multiprocessing.process.BaseProcess.start
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", start)
    with pytest.raises(OSError, match="temporarily"):
        Workers(square, 2)
    assert not started[0].is_alive()
