"""What can go wrong during a run: kills, signals, full disks, dead workers, memory that does not suffice."""

import errno
import itertools
import multiprocessing.process
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
import torch

import main
from benchmarks.endurance import busy
from benchmarks.soak import soak
from datasets import splits
from examples import FailingAt, write_pictures
from formats import state_file
from programs import PROJECT, begin, children, outliving, script
from reports import plots
from runs import FOLDER, SMALL, exit_files, last_state, resume, start, stopped
from system import arithmetic, stopping
from system.errors import UserError
from system.workers import WorkerDied
from training import run, setup, trainer

pytestmark = pytest.mark.slow


def test_killed_at_30_random_moments_a_run_ends_with_the_same_bits(tmp_path):
    assert soak(tmp_path, kills=30, seed=1) >= 1


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138), (signal.SIGUSR2, 140)],
)
def test_a_signal_to_the_group_saves_and_says_how_to_go_on(number, status, tmp_path):
    process, folder = start(tmp_path), tmp_path / "DIGITS-AuxResNet-8-2"
    before = (folder / "latest.pt").read_bytes()
    os.killpg(process.pid, number)
    _, text = process.communicate(timeout=60)
    assert process.returncode == status
    assert text.splitlines()[-1].endswith(f"python main.py --resume {folder}")
    assert not (folder / ".lock").exists()
    assert (folder / "latest.pt").read_bytes() != before  # and the epoch had not come to its end by then
    last_state(folder)


def test_a_second_ctrl_c_stops_at_once():
    code = """
from system import stopping; import signal, time
with stopping.stoppable() as stop:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)  # the same once more, from a program that tells the group, too
    print("noted", flush=True)
    time.sleep(stopping.AGAIN + 0.1)
    signal.raise_signal(signal.SIGINT)
    print("never")
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (130, "noted\n")


def test_ctrl_c_after_another_signal_is_the_first_ctrl_c():
    code = """
from system import stopping; import signal
with stopping.stoppable() as stop:
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    print("noted", stop.number)
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (0, "noted 15\n")


def test_every_write_that_fails_leaves_a_run_that_can_go_on(tmp_path, finished, monkeypatch):
    """The disk is full at the first, second, … write of a run, which is resumed each time."""
    real, fail_at = os.fsync, 0
    folder = tmp_path / FOLDER
    while True:
        fail_at, calls = fail_at + 1, itertools.count(1)

        def fsync(descriptor, fail_at=fail_at, calls=calls):
            if next(calls) == fail_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        begun = (folder / "latest.pt").exists() or (folder / "previous.pt").exists()
        options = ["--nEpochs", "2", "--nThreads", "0", "--save", str(tmp_path), *(["--resume"] if begun else [])]
        try:
            main.main([*SMALL, *options])
            if next(calls) <= fail_at:
                break
        except UserError as error:
            assert "could not be written: No space left on device" in str(error)
        assert not list(tmp_path.rglob("*.tmp"))
        if begun:
            state_file.read(folder)
    assert fail_at > 8
    assert exit_files(folder) == exit_files(finished[1])


def test_a_full_disk_is_one_line(tmp_path):
    """A real failure of `write`: the system refuses files of more than 100 kB."""
    command = [sys.executable, "main.py", *SMALL, "--nThreads", "0", "--save", str(tmp_path)]
    process = subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )  # fmt: skip
    assert process.returncode == 1
    lines = [line for line in process.stderr.splitlines() if "no GPU" not in line]
    assert len(lines) == 1, process.stderr
    assert f"{tmp_path / FOLDER / 'latest.pt'} could not be written: File too large" in lines[0]


@pytest.mark.parametrize("fault", ["drawing", "writing"])
def test_a_picture_that_cannot_be_made_does_not_stop_a_run(fault, tmp_path):
    """matplotlib does not know its backend, or a folder lies in the way of the file."""
    folder = tmp_path / FOLDER
    if fault == "writing":
        (folder / "curves.png").mkdir(parents=True)
    process = subprocess.run(
        [sys.executable, "main.py", *SMALL, "--nEpochs", "2", "--save", str(tmp_path)],
        cwd=PROJECT, capture_output=True, text=True,
        env={**os.environ, "MPLBACKEND": "nonsense" if fault == "drawing" else "agg"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert len(process.stderr.splitlines()) == 1, process.stderr
    assert process.stderr.endswith("; the run goes on\n")
    assert (folder / "README.md").exists()
    if fault == "writing":
        (folder / "curves.png").rmdir()
    assert script("main.py", "--resume", folder).returncode == 0
    assert (folder / "curves.png").is_file()


def test_a_state_is_saved_before_its_picture_is_drawn(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(plots, "draw_run", killed)
    with pytest.raises(KeyboardInterrupt):
        main.main([*SMALL, "--nEpochs", "1", "--save", str(tmp_path)])
    assert len(last_state(tmp_path / FOLDER)["log"]) == 1


def test_memory_that_runs_out_when_a_state_is_saved_ends_the_run_with_a_line(tmp_path, monkeypatch):
    real, calls = state_file.content, itertools.count(1)

    def short(state):
        if next(calls) == 2:
            raise MemoryError
        return real(state)

    monkeypatch.setattr(state_file, "content", short)
    with pytest.raises(UserError, match=r"out of memory in epoch 1/1.*--resume"):
        main.main([*SMALL, "--trainSize", "64", "--nEpochs", "1", "--save", str(tmp_path)])
    assert last_state(tmp_path / FOLDER)["log"] == []


def workers(process):
    """The loader workers of a run."""
    found = children(process.pid)
    assert found
    return found


def test_a_loader_worker_that_dies_is_named(tmp_path):
    process = start(tmp_path, "--nThreads", "1")
    for worker in workers(process):
        os.kill(worker, signal.SIGKILL)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    last = text.splitlines()[-1]
    assert "a worker died" in last
    assert "killed by SIGKILL" in last
    assert "--nThreads 0" in last


def die_after(monkeypatch, steps, meanwhile=lambda: None):
    """Let a loader worker die after so many steps, and something happen just before that is noticed."""
    real = run.training_batches

    def dying(*arguments, **options):
        yield from itertools.islice(real(*arguments, **options), steps)
        meanwhile()
        raise WorkerDied("a worker died: process 7 was killed by SIGKILL")

    monkeypatch.setattr(run, "training_batches", dying)


def test_what_was_done_when_a_loader_worker_died_is_not_lost(tmp_path, monkeypatch):
    die_after(monkeypatch, 3)
    with pytest.raises(UserError, match=r"worker died: process 7 was killed by SIGKILL; go on with .*--nThreads 0"):
        main.main([*SMALL, "--save", str(tmp_path)])
    assert last_state(tmp_path / FOLDER)["step"] == 3


def test_a_worker_that_dies_with_the_run_is_not_what_stopped_it(tmp_path, monkeypatch, capsys):
    """As where all processes of a batch job get a signal, and this one has not yet come to answering it."""
    monkeypatch.setattr(stopping.Stop, "breaking", lambda _: nullcontext())
    die_after(monkeypatch, 3, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        main.main([*SMALL, "--save", str(tmp_path)])
    assert ended.value.code == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; the state is saved" in capsys.readouterr().err
    assert last_state(tmp_path / FOLDER)["step"] == 3


def test_what_was_done_when_a_step_could_not_be_compiled_is_not_lost(finished, tmp_path, monkeypatch):
    """As where the compiler is killed, or the disk is full, at the fourth step; this goes on without compiled steps to
    the bits of a run that never had any: the step has left no trace."""
    monkeypatch.setattr(arithmetic, "compiles", lambda _: True)
    monkeypatch.setattr(trainer, "_compiled", lambda model: FailingAt(4, model))
    with pytest.raises(
        UserError, match=r"^torch.compile failed \(no compiler\);.* go on with .*--resume .* --compile f"
    ):
        main.main([*SMALL, "--nEpochs", "2", "--nThreads", "0", "--save", str(tmp_path), "--compile", "true"])
    folder = tmp_path / FOLDER
    assert last_state(folder)["step"] == 3
    main.main(["--resume", str(folder), "--compile", "false"])
    assert exit_files(folder) == exit_files(finished[1])


def test_a_gpu_that_fails_is_told_with_the_way_on(tmp_path, monkeypatch):
    def step(*_):
        raise torch.AcceleratorError("CUDA error: an illegal access\nand much more")

    monkeypatch.setattr(trainer.Trainer, "step", step)
    words = r"^the GPU failed: CUDA error: an illegal access; go on from the last save with .*--resume"
    with pytest.raises(UserError, match=words):
        main.main([*SMALL, "--nThreads", "0", "--save", str(tmp_path)])
    last_state(tmp_path / FOLDER)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("_read", "while reading the pictures of DIGITS; --trainSize takes fewer"),
        ("trainer", "for AuxResNet-14-3; give a smaller --depth or --widen"),
    ],
)
def test_memory_that_is_short_before_the_first_step_leaves_nothing(part, words, tmp_path, monkeypatch):
    def short(*_, **__):
        raise MemoryError

    monkeypatch.setattr(setup, part, short)
    with pytest.raises(UserError, match=f"out of memory {words}"):
        main.main([*SMALL, "--save", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_a_run_that_waits_for_a_stopped_worker_answers_signals(tmp_path):
    process = start(tmp_path, "--nThreads", "2")
    for worker in workers(process):
        os.kill(worker, signal.SIGSTOP)
    before = None
    while before != (before := busy(process.pid)):  # a step comes to its end, and the next one has no pictures
        time.sleep(1)
    process.terminate()
    _, text = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "stopped by SIGTERM; the state is saved" in text


def test_workers_do_not_outlive_a_killed_run_even_if_they_are_stopped(tmp_path):
    process = start(tmp_path, "--nThreads", "2")
    orphans = workers(process)
    os.kill(orphans[0], signal.SIGSTOP)
    process.kill()
    _, text = process.communicate(timeout=60)  # when nobody is left to write
    assert "Traceback" not in text
    assert not outliving(orphans)


def test_a_signal_before_the_first_step_ends_the_run_at_once(tmp_path, capsys):
    assert stopped([*SMALL, "--save", tmp_path / "new"], splits, "for_training", 1) == 143
    assert "stopped by SIGTERM before the first step; the same command starts again" in capsys.readouterr().err
    assert not (tmp_path / "new" / FOLDER).exists()


def test_a_run_needs_no_shared_memory(tmp_path):
    """In a mount namespace of its own, with a /dev/shm of one page, which is full."""
    mount = "mount -t tmpfs -o size=4k tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounting a file system takes root, and a kernel that lets it")
    line = shlex.join([sys.executable, "main.py", *SMALL, "--nEpochs", "1", "--nThreads", "2", "--save", str(tmp_path)])
    process = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{mount}; head -c 1M /dev/zero > /dev/shm/full 2>&-; {line}"],
        cwd=PROJECT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, "")


def test_without_workers_to_be_had_a_run_goes_on(tmp_path, finished, monkeypatch, capsys):
    def start(self):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", start)
    main.main([*SMALL, "--nEpochs", "2", "--nThreads", "2", "--save", str(tmp_path)])
    assert "no worker processes (Resource temporarily unavailable): this one does their work" in capsys.readouterr().err
    assert exit_files(tmp_path / FOLDER) == exit_files(finished[1])


LIMITED = """
import resource, sys
import training.run, matplotlib.pyplot, sklearn.datasets
import main
from pathlib import Path
from system.errors import one_line_errors
taken = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, 2 * (taken + 400_000_000,))
with one_line_errors("main.py"):
    main.main(sys.argv[1:])
"""


def test_memory_that_does_not_suffice_for_a_step_is_one_line_and_the_run_can_go_on(tmp_path):
    """A real shortage: the system gives 400 MB beyond what the program takes for itself."""
    options = [*SMALL, "--trainSize", "1024", "--widen", "4", "--batchsize", "1024", "--nThreads", "0"]
    process = subprocess.run(
        [sys.executable, "-c", LIMITED, *options, "--save", str(tmp_path)], cwd=PROJECT, capture_output=True, text=True
    )
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert line.startswith("main.py: error: out of memory in epoch 1/")
    for word in ("training", "--batchsize than 1024", "--shareGradInput true", "--resume"):
        assert word in line
    (folder,) = tmp_path.iterdir()
    last_state(folder)


def test_more_epochs_change_the_learning_rate_and_say_so(run_copy, capsys):
    save, _ = run_copy
    with pytest.raises(
        UserError, match=r"nEpochs is 3, was 2; leave them out \(more epochs are for --schedule step or cosine"
    ):
        resume(save, "--nEpochs", "3")  # one-cycle
    options = [*SMALL, "--schedule", "cosine", "--save", str(save / "cosine"), "--trainSize", "64"]
    main.main([*options, "--nEpochs", "1"])
    main.main([*options, "--nEpochs", "2", "--resume"])
    assert "nEpochs raised from 1 to 2" in capsys.readouterr().out
    folder = save / "cosine" / FOLDER
    assert len((folder / "log.csv").read_text().splitlines()) == 3
    assert "It trains for 2 epochs; " in (folder / "README.md").read_text()
    assert "It was begun for 1 and given more later" in (folder / "README.md").read_text()


def test_nohup_stays_in_force():
    code = """
import os, signal, time
from system import stopping
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with stopping.stoppable() as stop:
    os.kill(os.getpid(), signal.SIGHUP)
    time.sleep(0.1)
    stop.check()
    print("goes on")
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert process.stdout == "goes on\n", process.stderr


def test_a_command_that_resumes_works_when_it_is_pasted(tmp_path):
    """From a folder whose name begins with a dash and has a quote in it, and from one that is a word of --resume."""
    name = "-it's"
    write_pictures(tmp_path / name / "train", {"a": 20, "b": 20})
    write_pictures(tmp_path / name / "test", {"a": 4, "b": 4})
    program = [sys.executable, "-u", str(PROJECT / "main.py")]
    line = [*program, f"--data=./{name}", "--depth", "8", "--nGPU", "0", "--batchsize", "4", "--schedule", "cosine"]
    process = begin([*line, "--nEpochs", "400"], cwd=tmp_path, stdout=subprocess.PIPE)
    while not process.stdout.readline().startswith("epoch"):
        assert process.poll() is None
    process.terminate()
    command = process.communicate(timeout=60)[1].splitlines()[-1].partition("go on with: ")[2]
    assert shlex.split(command)[:2] == ["python", str(PROJECT / "main.py")]
    pasted = f"exec {shlex.join(program)} {shlex.join(shlex.split(command)[2:])}"
    resumed_and_stopped(["bash", "-c", pasted], tmp_path)
    (tmp_path / shlex.split(command)[-1]).rename(tmp_path / "auto")
    assert resumed_and_stopped([*program, "--resume", "./auto"], tmp_path).endswith(" --resume ./auto\n")


def resumed_and_stopped(line, folder):
    """What a command that goes on with a run tells on standard error when it is stopped."""
    process = begin(line, cwd=folder, stdout=subprocess.PIPE)
    while "resumed after epoch" not in process.stdout.readline():
        assert process.poll() is None
    process.terminate()
    return process.communicate(timeout=60)[1]
