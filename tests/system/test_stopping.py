"""Signals: noted while work must not be broken off, answered at once where it may be."""

import os
import signal
import time

import pytest

from system.errors import Stopped
from system.stopping import stoppable


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
    time.sleep(0.001)  # Python hears of it between two instructions


def test_a_signal_is_noted_and_raised_where_work_may_be_broken_off():
    with stoppable() as stop:
        send()
        with pytest.raises(Stopped, match="SIGTERM") as caught, stop.breaking():
            pytest.fail("the work began")
    assert caught.value.status == 143


def test_a_wait_is_broken_off():
    def slow():
        send(signal.SIGUSR1)
        time.sleep(10)
        yield

    with stoppable() as stop, pytest.raises(Stopped, match="SIGUSR1"):
        next(stop.awaiting(slow()))


def test_after_a_wait_signals_are_noted_again():
    with stoppable() as stop:
        for _ in stop.awaiting(iter(range(2))):
            send()
            break
        with pytest.raises(Stopped):
            stop.check()


def test_what_is_raised_is_no_failure_of_the_work():
    with stoppable() as stop, pytest.raises(Stopped), stop.breaking():
        try:
            send()
        except Exception:
            pytest.fail("taken for a failure")


def test_inside_one_that_may_be_broken_off_another_may():
    with stoppable() as stop, pytest.raises(Stopped), stop.breaking():
        with stop.breaking():
            pass
        send()
        pytest.fail("the work went on")


def test_a_handler_that_is_no_python_is_in_nobodys_way(monkeypatch):
    """As a launcher or a profiler sets it; Python cannot put it back."""
    real, number = signal.signal, signal.SIGUSR1
    before = signal.getsignal(number)

    def foreign(of, handler):
        found = real(of, handler)
        return None if of == number else found

    monkeypatch.setattr(signal, "signal", foreign)
    try:
        with stoppable() as stop:
            send(number)
            assert stop.number == number
    finally:
        real(number, before)
