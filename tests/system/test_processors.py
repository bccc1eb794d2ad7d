"""Whether the threads of a program have a processor each."""

import os
import subprocess
import sys
import time

import pytest

import main
from programs import PROJECT, script
from reports import progress
from runs import FOLDER, SMALL, exit_files, logged
from system import containers, processors


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A host of eight processors, of which this process may run on six; its launcher on all. Gives a function that says
    what control groups there are, by their files."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8 if process else 6)), raising=False)
    monkeypatch.setattr(containers, "GROUPS", tmp_path)
    monkeypatch.setattr(containers, "OWN", tmp_path / "own")

    def write(own, **files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("cpu_", "cpu.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


@pytest.mark.parametrize(
    ("threads", "processes", "words"),
    [
        (6, 1, None),
        (7, 1, "7 threads compute on 6 processors, where threads wait for one another: that is slow; "
               "give --cpuThreads 6"),
        (2, 4, None),
        (3, 4, "4 processes of 3 threads each compute on 8 processors, where threads wait for one another: that is "
               "slow; give --cpuThreads 2"),
        (1, 9, "9 processes of 1 thread each compute on 8 processors, where threads wait for one another: that is "
               "slow; start no more than 8, with --cpuThreads 1"),
    ],
)  # fmt: skip
def test_threads_without_a_processor_of_their_own_are_told(threads, processes, words, groups):
    assert processors.crowded(threads, processes) == words


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/job/step\n", {"job__cpu_max": "250000 100000\n", "job__step__cpu_max": "max 100000\n"}),
        ("0::/elsewhere\n", {"cpu_max": "300000 100000\n"}),
        ("3:cpu,cpuacct:/job\n0::/\n", {"cpu__job__cpu_cfs_quota_us": "5000\n", "cpu__job__cpu_cfs_period_us": "2000"}),
    ],
)
def test_the_quota_of_a_container_counts(own, files, groups):
    groups(own, **files)
    assert processors.usable() == 3
    assert processors.crowded(3, 1) is None
    assert "4 threads compute on 3 processors" in processors.crowded(4, 1)


@pytest.mark.parametrize("quota", ["max 100000\n", "-1 100000\n", "", "x y\n", "1 2 3"])
def test_a_group_without_a_quota_does_not_count(quota, groups):
    groups("0::/\n", cpu_max=quota)
    assert processors.crowded(6, 1) is None


class Host:
    """A clock, and what the system has counted of the threads of a process that began an hour ago."""

    def __init__(self, folder):
        self.folder, self.seconds, self.counts = folder, 3600.0, [[10**12, 10**12], [10**12, 10**12]]
        self.go_on(0, 0)

    def __call__(self):
        return self.seconds

    def go_on(self, seconds, waited):
        """So many seconds later, for a part of which the threads have waited."""
        self.seconds += seconds
        for number, count in enumerate(self.counts):
            count[0] += int(1e9 * seconds * (1 - waited))
            count[1] += int(1e9 * seconds * waited)
            (self.folder / str(number)).mkdir(exist_ok=True)
            (self.folder / str(number) / "schedstat").write_text(f"{count[0]} {count[1]} 77\n")


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(processors, "TASKS", tmp_path)
    return Host(tmp_path)


def test_threads_that_wait_for_other_programs_are_told_once(host):
    waiting = processors.Waiting(2, host)
    host.go_on(5, waited=0.9)  # too short to tell
    assert waiting.advice() is None
    host.go_on(100, waited=0.03)
    assert waiting.advice() is None
    host.go_on(40, waited=0.6)
    assert waiting.advice() == (
        "other programs, or the quota of a container, take the processors: for 60 % of the time the 2 threads of this "
        "run waited for one, and so for "
        "one another; fewer --cpuThreads may be quicker"
    )
    host.go_on(40, waited=0.6)
    assert waiting.advice() is None


def test_a_thread_that_ends_while_it_is_counted_tells_nothing(host):
    waiting = processors.Waiting(2, host)
    (host.folder / "1" / "schedstat").unlink()
    host.seconds += 40
    assert waiting.advice() is None
    host.go_on(40, waited=0.03)  # since the threads began, they have waited for half of the time
    assert waiting.advice() is None
    host.go_on(40, waited=0.6)
    assert waiting.advice()


@pytest.mark.parametrize("counted", ["", "x y z", None])
def test_where_the_system_does_not_count_nothing_is_told(counted, host):
    for path in host.folder.glob("*/schedstat"):
        path.unlink() if counted is None else path.write_text(counted)
    waiting = processors.Waiting(2, host)
    host.seconds += 100
    assert waiting.advice() is None


def test_one_thread_waits_for_no_other(host):
    waiting = processors.Waiting(1, host)
    host.go_on(100, waited=0.6)
    assert waiting.advice() is None


@pytest.mark.skipif(processors._counted() is None, reason="this system does not count what threads wait")
def test_this_system_counts_what_threads_compute():
    before = sum(processors._counted())
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    assert sum(processors._counted()) > before


@pytest.mark.slow
def test_a_run_tells_how_far_it_is_and_who_takes_the_processors(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PAUSE_ELSEWHERE", 0.0)
    monkeypatch.setattr(processors.Waiting, "advice", lambda _: "others take the processors")
    main.main([*SMALL, "--trainSize", "64", "--nEpochs", "1", "--save", str(tmp_path)])
    told = capsys.readouterr().err.splitlines()
    assert "others take the processors" in told
    assert any(line.startswith("epoch 1/1 training, 100 % done") for line in told)


@pytest.mark.slow
def test_a_crowded_run_says_so_once(tmp_path):
    crowd = len(os.sched_getaffinity(0)) + 1
    process = script(
        "main.py", *SMALL, "--nEpochs", "1", "--trainSize", "64", "--cpuThreads", crowd, "--save", tmp_path
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("that is slow; give --cpuThreads") == 1
    card = script("test.py", "DIGITS", tmp_path / FOLDER, "--exit", "all", "--cpuThreads", "2", "--nGPU", "0")
    assert "timed on CPU, 2 threads" in card.stdout


@pytest.mark.slow
def test_the_option_wins_over_the_environment_and_may_change_on_resume(finished, tmp_path, capsys):
    """`finished` computed in one thread, because the environment of all tests says so."""
    options = [*SMALL, "--nEpochs", "2", "--cpuThreads", "1", "--save", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "main.py", *options], cwd=PROJECT, env=environment, check=True, capture_output=True)
    assert exit_files(tmp_path / FOLDER) == exit_files(finished[1])
    assert logged(tmp_path / FOLDER) == logged(finished[1])
    main.main([*options, "--resume", "--cpuThreads", "2"])
    assert "cpuThreads=2" in capsys.readouterr().out
