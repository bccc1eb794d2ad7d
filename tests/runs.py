"""Small runs on DIGITS: begun, gone on with, broken off, and what they leave, read back."""

import csv
import signal
import sys
import time
from dataclasses import replace

import pytest

import main
from formats import state_file
from formats.log_file import TIMES
from programs import PROJECT, begin, signal_during
from system.errors import UserError
from training.run import Run

SMALL = ["--data", "DIGITS", "--depth", "14", "--nOutputs", "3", "--trainSize", "256", "--nGPU", "0"]
NAME, EXITS = "AuxResNet-14-3", (5, 9, 14)  # of its network
FOLDER = f"DIGITS-{NAME}"  # of its run


def exit_files(folder):
    """The bytes of every exit file of a run, by name."""
    files = {path.name: path.read_bytes() for path in sorted(folder.glob("exit-*.safetensors"))}
    assert files
    return files


def last_state(folder):
    """The training state of a run, which is the last one that was written, and whole."""
    state, wrong = state_file.read(folder)
    assert wrong is None
    return state


def epochs_saved(folder):
    """How many epochs the last state has behind it of a run that goes on and may be writing another; 0 where there is
    none yet."""
    try:
        return len(state_file.read(folder)[0]["log"])
    except UserError:
        return 0


def logged(folder):
    """The rows of a run's log as text, without their times."""
    with (folder / "log.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def points(folder):
    """The points of every curve in TensorBoard's files: a list of (epoch, value) by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {tag: [(one.step, one.value) for one in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def wait_for_epochs(folder, count, process):
    """Until a run, or the one that goes on with it, has saved so many epochs."""
    end = time.monotonic() + 300
    while epochs_saved(folder) < count:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


def start(save, *options):
    """A long run in a process of its own, which has saved its first epoch. An epoch has 80 steps."""
    command = [sys.executable, "main.py", "--data", "DIGITS", "--nGPU", "0", "--nEpochs", "500", "--save", str(save)]
    process = begin(
        [*command, "--depth", "8", "--trainSize", "320", "--batchsize", "4", *options],
        cwd=PROJECT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # also where nohup runs the tests
    )
    wait_for_epochs(save / "DIGITS-AuxResNet-8-2", 1, process)
    return process


def resume(save, *options):
    """Go on with a copy of a finished run, in this process."""
    main.main([*SMALL, "--nEpochs", "2", "--nThreads", "0", "--save", str(save), "--resume", *options])


def stopped(line, owner, method, call, number=signal.SIGTERM):
    """Run main.py in this process until a signal in that call ends it; returns its status."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        signal_during(patch, owner, method, call, number)
        main.main([str(word) for word in line])
    return ended.value.code


def with_errors(monkeypatch, errors):
    """Let tests of the network after an epoch give these errors: for each epoch those of the exits."""
    real = Run.evaluate

    def evaluate(self, epoch):
        found = real(self, epoch)
        return found._replace(result=replace(found.result, errors=errors[epoch]))

    monkeypatch.setattr(Run, "evaluate", evaluate)


def uninterrupted_run(tmp_path_factory, line):
    """The folder given as --save of a run that nothing interrupts, in this process and without loader workers."""
    save = tmp_path_factory.mktemp("uninterrupted")
    main.main([*line, "--save", str(save), "--nThreads", "0"])
    return save
