"""One line for each failure: what was being done, and what helps."""

import errno
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from examples import write_pictures
from programs import PROJECT
from system import files
from system.errors import UserError, failures_as, is_shortage, memory_for, one_line_errors

SHORT = (
    MemoryError(),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    OSError("out of memory when reading image file"),  # Pillow's
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("can't start new thread"),
    SystemError("<function _find_and_load at 0x7f> returned NULL without setting an exception"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
)


@pytest.fixture
def streams(monkeypatch):
    """The streams of the process, put back after a program has replaced them."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)


def told(error, capfd):
    """The line that a program prints when this is raised in it, and its status."""
    with pytest.raises(SystemExit) as ended, one_line_errors("test.py"):
        raise error
    return capfd.readouterr().err, ended.value.code


@pytest.mark.parametrize("error", SHORT, ids=lambda error: f"{type(error).__name__} {error}"[:40])
def test_a_shortage_of_memory_is_told_in_one_line(error, capfd, streams):
    with (
        pytest.raises(UserError, match="memory while counting; count less"),
        memory_for("while counting", "count less"),
    ):
        raise error
    line, status = told(error, capfd)
    assert (line.count("\n"), status) == (1, 1)
    assert "out of memory in test.py; end other programs" in line


def test_a_shortage_of_memory_is_not_told_as_another_failure():
    of_onnxruntime = type("RuntimeException", (Exception,), {"__module__": "onnxruntime.capi"})
    for error in (
        MemoryError(),
        of_onnxruntime("Failed to allocate memory for requested buffer"),
        UserError("as it is"),
    ):
        with pytest.raises(type(error)) as raised, failures_as(lambda _: "the file is damaged"):
            raise error
        assert raised.value is error
    with (
        pytest.raises(UserError, match="the file is damaged: shape"),
        failures_as(lambda e: f"the file is damaged: {e}"),
    ):
        raise of_onnxruntime("shape")


def test_other_errors_are_not_taken_for_one():
    assert not any(map(is_shortage, (RuntimeError("shape"), OSError(errno.ENOSPC, "full"), ImportError("no module"))))


def test_a_package_that_is_missing_is_named(capfd, streams):
    line, _ = told(ModuleNotFoundError("No module named 'safetensors'"), capfd)
    assert line == (
        "test.py: error: No module named 'safetensors'; pip install -r requirements.txt installs what is needed\n"
    )


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EROFS, "give a folder that can be written"), (errno.ENFILE, "end other programs")]
)
def test_what_the_system_refuses_is_told_with_what_helps(number, words, capfd, streams):
    line, _ = told(OSError(number, os.strerror(number), "some/file"), capfd)
    assert line.startswith(f"test.py: error: some/file: {os.strerror(number)}; ")
    assert words in line


@pytest.mark.parametrize("wrapped", [False, True])
def test_too_many_open_files_are_told_with_what_helps(wrapped, capfd, streams, monkeypatch, tmp_path):
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE), "some/file")
    if wrapped:  # by what was being done

        def refuse(*_, **__):
            raise error

        with monkeypatch.context() as patch, pytest.raises(UserError) as caught:
            patch.setattr(Path, "open", refuse)
            patch.setattr(os, "open", refuse)
            files.write(tmp_path / "latest.pt", b"")
        error = caught.value
    line, _ = told(error, capfd)
    assert "Too many open files" in line
    assert "ulimit -n" in line
    assert "--nThreads" in line


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("PROGRAM >/dev/full", 1, "test.py: error: standard output: No space left on device\n"),
        ("PROGRAM | head -1 >/dev/null; exit ${PIPESTATUS[0]}", 1, ""),
        ("PROGRAM >&-", 1, "test.py: error: standard output: it is closed\n"),
    ],
)
def test_programs_that_only_print_end_with_their_reader(line, status, said):
    """A run outlives it (test_output.py); what is made for a reader does not."""
    code = "from system.errors import one_line_errors as e\nwith e('test.py'):\n for n in range(99999): print(n)"
    line = line.replace("PROGRAM", f'"{sys.executable}" -c "$CODE"')
    environment = {**os.environ, "CODE": code}
    process = subprocess.run(
        ["bash", "-c", line], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (process.returncode, process.stderr) == (status, said)


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGTERM, 143, "ended by SIGTERM"),
        (signal.SIGHUP, 129, "ended by SIGHUP"),
        (signal.SIGINT, 130, "interrupted"),
    ],
)
def test_a_signal_ends_a_program_with_a_line_whoever_reads_its_output(number, status, said, tmp_path):
    """What it was writing for a while is taken away, and a reader that is gone is no reason to keep silent."""
    code = """
import os, signal, sys
from system.errors import one_line_errors
from system.files import temporary_folder
number = int(sys.argv[1])
signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)  # nohup ignores SIGHUP
with one_line_errors("export.py"), temporary_folder() as folder:
    (folder / "whole.onnx").touch()
    print("something")
    signal.raise_signal(number)
"""
    command = f'trap "" PIPE; "{sys.executable}" -c "$CODE" {int(number)} | true; exit ${{PIPESTATUS[0]}}'
    environment = {**os.environ, "CODE": code, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": ""}
    process = subprocess.run(
        ["bash", "-c", command], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (process.returncode, process.stderr) == (status, f"export.py: {said}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("--format csv >/dev/full", 1, "predict.py: error: standard output: No space left on device\n"),
        ("--out {} >&-", 0, ""),
    ],
)
def test_what_was_printed_before_processes_begin_is_not_lost_unnoticed(words, status, said, finished, tmp_path):
    """The first line of CSV waits to be written until pictures are decoded, by processes, for which it has to be. Where
    nothing is printed, it does not matter that nothing can be."""
    write_pictures(tmp_path, {"a": 6})
    command = shlex.join([sys.executable, "predict.py", str(finished[1]), str(tmp_path / "a"), "--nGPU", "0"])
    process = subprocess.run(
        ["bash", "-c", f"{command} {words.format(tmp_path / 'out.csv')}"], cwd=PROJECT,
        env={**os.environ, "PYTHONUNBUFFERED": ""}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (status, said)
    assert (tmp_path / "out.csv").exists() == (status == 0)


@pytest.mark.parametrize(("where", "said"), [("/dev/full", "No space left on device"), ("&-", "it is closed")])
def test_help_that_cannot_be_written_is_told(where, said):
    line = f'"{sys.executable}" test.py --help >{where}'
    process = subprocess.run(["bash", "-c", line], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stderr) == (1, f"test.py: error: standard output: {said}\n")
