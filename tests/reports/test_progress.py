"""How far a run has come: a sentence once a minute in a log, once a second on a terminal, and no look in between."""

import sys

import pytest

from models.metrics import Result
from reports.progress import Progress, duration


class Run:
    """Four epochs of 1,000 pictures in batches of 100 on a clock that is moved by hand; counts looks at the result."""

    def __init__(self, done=0):
        self.now, self.looks = 0.0, 0
        self.progress = Progress(1000, 4, done, (19, 26), clock=lambda: self.now)

    def result(self):
        self.looks += 1
        return Result(1.2345, (12.0, 9.876))

    def steps(self, count, seconds):
        """Make so many steps that take so many seconds each."""
        for _ in range(count):
            self.now += seconds
            self.progress.step(100, self.result)


def test_a_log_gets_one_plain_line_a_minute(capsys):
    run = Run()
    run.progress.epoch(0, "training")
    run.steps(10, 20)
    run.progress.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "epoch 1/4 training, 30 % done, about 12 min left, loss 1.234, error 19: 12.00 26: 9.88, 5 images/s",
        "epoch 1/4 training, 60 % done, about 11 min left, loss 1.234, error 19: 12.00 26: 9.88, 5 images/s",
        "epoch 1/4 training, 90 % done, about 10 min left, loss 1.234, error 19: 12.00 26: 9.88, 5 images/s",
    ]
    assert run.looks == 3


def test_a_run_of_less_than_a_minute_is_silent_and_never_waits_for_the_device(capsys):
    run = Run()
    for epoch in range(4):
        run.progress.epoch(epoch, "training")
        run.steps(10, 1.4)
        run.progress.epoch(epoch, "testing")
        run.progress.line(f"epoch {epoch + 1}/4 is done")
    run.progress.close()
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [f"epoch {epoch}/4 is done" for epoch in (1, 2, 3, 4)]
    assert run.looks == 0


def test_what_is_told_beside_the_bar_begins_on_a_line_of_its_own(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run = Run()
    run.progress.epoch(0, "training")
    run.steps(2, 2)
    run.progress.tell("other programs take the processors")
    run.progress.close()
    lines = capsys.readouterr().err.split("other programs take the processors\n")
    assert len(lines) == 2
    assert "epoch 1/4 training" in lines[0]
    assert lines[0].endswith("\r")  # the bar has been wiped away
    assert "epoch 1/4 training" in lines[1]  # and is drawn anew


def test_the_bar_goes_on_where_the_clock_of_the_system_stands_still(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("tqdm.std.time", lambda: 0.0)  # as if it had been set back
    run = Run()
    run.progress.epoch(0, "training")
    run.steps(4, 1)
    assert "40 % done" in capsys.readouterr().err


def test_tests_count_in_the_time_that_is_left_and_not_in_the_pace_of_training(capsys):
    run = Run()
    run.progress.epoch(0, "training")
    run.steps(10, 1)  # 9 s from the end of the first step on
    run.progress.epoch(0, "testing")
    run.now += 91
    run.progress.epoch(1, "training")
    run.steps(2, 1)
    (line,) = capsys.readouterr().err.splitlines()  # after the first step, whose pace is not known
    assert line.startswith("epoch 2/4 training, 10 % done, about 5 min left, loss ")
    assert "images/s" not in line
    run.now += 56
    run.steps(3, 1)
    assert capsys.readouterr().err.endswith(", 7 images/s\n")  # 400 pictures in 60 s


def test_the_first_step_which_waits_for_workers_and_compilers_spoils_no_pace(capsys):
    run = Run()
    run.progress.epoch(0, "training")
    run.steps(1, 600)
    assert capsys.readouterr().err == "epoch 1/4 training, 10 % done, loss 1.234, error 19: 12.00 26: 9.88\n"
    run.steps(6, 10)
    assert "about 6 min left" in (line := capsys.readouterr().err)
    assert line.endswith(", 10 images/s\n")


def test_a_resumed_run_goes_on_where_it_was(capsys):
    run = Run(done=2500)
    run.progress.epoch(2, "training")
    run.steps(4, 20)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("epoch 3/4 training, 80 % done, about 4 min left, ")


def test_a_terminal_gets_a_bar_and_a_new_sentence_once_a_second(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run = Run()
    run.progress.epoch(0, "training")
    run.steps(10, 0.25)
    assert run.looks == 2
    run.progress.line("above the bar")
    run.progress.close()
    out, err = capsys.readouterr()
    assert out == "above the bar\n"
    assert "\r" in err
    assert "epoch 1/4 training, 80 % done, about 8 s left, loss 1.234, error 19: 12.00 26: 9.88, 400 images/s" in err


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3569, "59 min"),
        (3571, "1 h 0 min"),
        (7980, "2 h 13 min"),
        (86390, "1 d 0 h"),
        (273600, "3 d 4 h"),
    ],
)
def test_times_are_written_in_their_two_largest_units(seconds, words):
    assert duration(seconds) == words
