"""Writes that follow no link, and file systems that cannot do everything."""

import errno
import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

import main
from programs import PROJECT, deprived, script
from system import files, lock
from system.errors import UserError
from system.files import temporary_folder
from system.lock import in_turn, locked

OLD_RUN = PROJECT / "tests" / "fixtures" / "interrupted" / "DIGITS-AuxResNet-8-2"
CONTENTS = {"a": b"first", "b": b"second"}  # of a folder
LINKS = {"symbolic": os.symlink, "hard": os.link}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("durable", [True, False])
def test_a_link_in_the_place_of_a_file_is_replaced(link, durable, tmp_path):
    precious, target = tmp_path / "precious", tmp_path / "target"
    precious.write_text("mine")
    LINKS[link](precious, target)
    LINKS[link](precious, tmp_path / ".target.tmp")
    files.write(target, b"new ", memoryview(b"content"), durable=durable)
    assert (precious.read_text(), target.read_text()) == ("mine", "new content")
    assert not target.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".target.tmp", "precious", "target"]


def test_a_link_to_nothing_makes_nothing(tmp_path):
    (tmp_path / "target").symlink_to(tmp_path / "elsewhere")
    files.write(tmp_path / "target", b"content")
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "target").is_symlink()


@pytest.mark.slow
@pytest.mark.parametrize("link", LINKS)
def test_no_link_in_the_folder_of_a_run_leads_its_writes_elsewhere(link, tmp_path):
    """Every file of a run, and every name that one has, is another name of a file elsewhere."""
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(OLD_RUN, folder)
    names = ["latest.pt", "opt.json", "log.csv", "previous.pt", "curves.png", "README.md", "exit-5.safetensors",
             "exit-8.safetensors"]  # fmt: skip
    elsewhere.mkdir()
    for name in names:
        content = (folder / name).read_bytes() if (folder / name).exists() else b"mine"
        (elsewhere / name).write_bytes(content)
        (folder / name).unlink(missing_ok=True)
        LINKS[link](elsewhere / name, folder / name)
    before = {path: path.read_bytes() for path in elsewhere.iterdir()}
    main.main(["--resume", str(folder)])
    assert {path: path.read_bytes() for path in elsewhere.iterdir()} == before
    assert (folder / "README.md").read_text().startswith("# AuxResNet-8-2")
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("kind", [*LINKS, "dangling", "pipe", "folder"])
def test_a_lock_that_is_none_is_named_and_left_alone(kind, tmp_path):
    precious, lock = tmp_path / "precious", tmp_path / "run" / ".lock"
    precious.write_text("mine")
    lock.parent.mkdir()
    if kind in LINKS:
        LINKS[kind](precious, lock)
    elif kind == "dangling":
        lock.symlink_to(tmp_path / "nothing")
    else:
        (os.mkfifo if kind == "pipe" else os.mkdir)(lock)
    with pytest.raises(UserError, match=f"{lock} is no lock file.*remove it"), locked(lock.parent):
        pass
    assert precious.read_text() == "mine"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("kind", ["file", "dangling", "circle", "pipe", "below"])
def test_something_else_in_the_place_of_a_folder_is_named_and_left_alone(kind, tmp_path):
    folder = tmp_path / "run"
    if kind in ("dangling", "circle"):
        folder.symlink_to(tmp_path / ("nothing" if kind == "dangling" else "run"))
    else:
        (os.mkfifo if kind == "pipe" else Path.touch)(folder)
    wanted = folder / "below" if kind == "below" else folder
    with pytest.raises(UserError, match=f"{wanted} cannot be made.*remove"), locked(wanted):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_another_run_removes_is_made_anew(tmp_path, monkeypatch, capsys):
    real, folder = os.open, tmp_path / "run"

    def removed_first(path, *arguments):
        monkeypatch.setattr(os, "open", real)
        folder.rmdir()
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", removed_first)
    with locked(folder):
        assert (folder / ".lock").exists()
    assert not capsys.readouterr().err


def test_a_full_or_missing_place_for_temporary_files_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UserError, match=f"temporary files in {tmp_path}: No space left .*TMPDIR"), temporary_folder():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(UserError, match=f"{tmp_path}/none: No such file .*TMPDIR"), temporary_folder():
        pass
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    with pytest.raises(UserError, match=r"temporary files: No usable temporary .*TMPDIR"), temporary_folder():
        pass


def test_folders_that_were_made_for_nothing_are_gone(tmp_path):
    with locked(tmp_path / "runs" / "new" / "run"):
        assert (tmp_path / "runs" / "new" / "run").is_dir()
    assert not list(tmp_path.iterdir())
    (tmp_path / "runs").mkdir()
    with locked(tmp_path / "runs" / "new" / "run"):
        (tmp_path / "runs" / "new" / "mine").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "new", "mine"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_without_locks_a_run_says_so_once_and_goes_on(number, tmp_path, monkeypatch, capsys):
    def lockf(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    (tmp_path / ".lock").write_text("process 1 on elsewhere\n")
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
    told = f"{tmp_path} cannot be locked on this system or file system: see to it that no second run uses it\n"
    assert capsys.readouterr().err == told


def test_without_locks_of_the_system_a_run_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "fcntl", None)
    (tmp_path / ".lock").write_text("process 1 on elsewhere\n")
    with locked(tmp_path):
        pass
    assert "cannot be locked" in capsys.readouterr().err


def test_the_lock_file_of_another_user_is_no_hindrance_to_taking_turns(tmp_path):
    (tmp_path / ".lock").touch(0o444)
    code = "import pathlib, sys, system.lock as s\nwith s.in_turn(pathlib.Path(sys.argv[1]), 'reading'): print(1)"
    command = deprived([sys.executable, "-c", code, str(tmp_path)])
    process = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert (process.stdout, process.stderr) == ("1\n", "")


def test_who_waits_for_another_program_says_so(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(lock, "tell", told.append)

    def wait():
        with in_turn(tmp_path, "downloading into"):
            pass

    with in_turn(tmp_path, "downloading into"):
        thread = threading.Thread(target=wait)
        thread.start()
        end = time.monotonic() + 30
        while not told and time.monotonic() < end:
            assert thread.is_alive()
            time.sleep(0.01)
    thread.join(60)
    assert told == [f"waiting for another program that is downloading into {tmp_path}/"]


def test_a_lock_full_of_escapes_is_printed_as_one_short_line(tmp_path, capsys):
    (tmp_path / ".lock").write_bytes(b"\x1b[2J\n\xff" * 10**6)
    with locked(tmp_path):
        pass
    told = capsys.readouterr().err.rstrip("\n")
    assert told.isprintable()
    assert 0 < len(told) < 400


def test_what_cut_off_writes_left_is_removed(tmp_path, capsys):
    for name in (".auxresnet-0123.tmp", "mine.tmp"):
        (tmp_path / name).write_text("half")
    with locked(tmp_path):
        assert not capsys.readouterr().err
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "mine.tmp"]


def failing(monkeypatch, owner, name, number, times, really=False):
    """Let a method fail so many times; with `really` it does first what it is asked for."""
    real, left = getattr(owner, name), [number] * times

    def method(self, *arguments):
        if left:
            if really:
                real(self, *arguments)
            raise OSError(left.pop(), os.strerror(number))
        return real(self, *arguments)

    monkeypatch.setattr(owner, name, method)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EBUSY])
def test_a_rename_that_fails_for_a_moment_is_tried_again(number, tmp_path, monkeypatch):
    failing(monkeypatch, Path, "replace", number, 2)
    files.write(tmp_path / "target", b"content")
    assert (tmp_path / "target").read_bytes() == b"content"


@pytest.mark.parametrize("keep", [None, "kept"])
def test_a_rename_whose_answer_is_lost_was_done(keep, tmp_path, monkeypatch):
    """With a file to keep, that of the first of two renames."""
    (tmp_path / "target").write_bytes(b"old")
    failing(monkeypatch, Path, "replace", errno.ENOENT, 1, really=True)
    files.write(tmp_path / "target", b"content", keep=keep and tmp_path / keep)
    assert (tmp_path / "target").read_bytes() == b"content"
    assert not keep or (tmp_path / keep).read_bytes() == b"old"


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EROFS, errno.EIO])
def test_a_rename_that_fails_leaves_the_old_file_and_no_other(number, tmp_path, monkeypatch):
    (tmp_path / "target").write_bytes(b"old")
    failing(monkeypatch, Path, "replace", number, 1)
    with pytest.raises(UserError, match=f"target could not be written: {os.strerror(number)}"):
        files.write(tmp_path / "target", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("target", b"old")]


def test_a_file_system_that_does_not_know_fsync(tmp_path, monkeypatch):
    failing(monkeypatch, os, "fsync", errno.EINVAL, 2)
    files.write(tmp_path / "target", b"content")
    assert (tmp_path / "target").read_bytes() == b"content"


@pytest.mark.slow
def test_a_lock_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    """In a mount namespace of its own, on a disk that has room for names, and for nothing else."""
    mount = f"mount -t tmpfs -o size=4k tmpfs {tmp_path} && head -c 4096 /dev/zero > {tmp_path}/filler"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounting a file system takes root, and a kernel that lets it")
    code = f"""
from pathlib import Path; from system.lock import locked
try:
    with locked(Path("{tmp_path}/run")):
        print("went on")
except ValueError as error:
    print(error)
"""
    line = shlex.join([sys.executable, "-c", code])
    process = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{mount}; {line}; ls {tmp_path}"], cwd=PROJECT, capture_output=True, text=True
    )
    told = f"{tmp_path}/run/.lock could not be written: No space left on device"
    assert (process.stdout.splitlines(), process.stderr) == ([told, "filler"], "")


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
def test_what_is_in_the_folder_of_devices_is_not_replaced(name, tmp_path):
    """Where standard output is a file, these lead to a regular one."""
    code = f"from pathlib import Path; from system import files; files.check_target(Path('{name}'))"
    with (tmp_path / "output").open("w") as output:
        process = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, stdout=output, stderr=subprocess.PIPE)
    assert re.search(rb"UserError: \S+ (is no regular file|cannot be written)", process.stderr)


def test_a_plot_does_not_follow_a_link(tmp_path):
    precious = tmp_path / "precious.png"
    precious.write_text("mine")
    (tmp_path / "runs.png").symlink_to(precious)
    process = script("plot.py", OLD_RUN, "--out", tmp_path / "runs.png")
    assert process.returncode == 0, process.stderr
    assert precious.read_text() == "mine"
    assert (tmp_path / "runs.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_a_folder_is_written_as_a_whole(tmp_path, there):
    place = tmp_path / "new"
    if there:
        place.mkdir()
    files.check_new_folder(place)
    files.write_folder(place, CONTENTS)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == CONTENTS
    assert list(tmp_path.iterdir()) == [place]


def test_where_one_file_cannot_be_written_there_is_no_folder(tmp_path, monkeypatch):
    real = files.os.fsync

    def full(descriptor):
        if any(tmp_path.glob("*/a")):  # the first file is there, and its folder is brought to the disk
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match="new/ could not be written: No space left on device"):
        files.write_folder(tmp_path / "new", CONTENTS)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_fills_up_meanwhile_is_not_replaced(tmp_path):
    (tmp_path / "new").mkdir()
    files.check_new_folder(tmp_path / "new")
    (tmp_path / "new" / "mine").touch()
    with pytest.raises(UserError, match="new/ could not be written: Directory not empty"):
        files.write_folder(tmp_path / "new", CONTENTS)
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "mine"]


def test_a_link_to_an_empty_folder_leads_to_the_bundle(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    files.check_new_folder(tmp_path / "link")
    files.write_folder(tmp_path / "link", CONTENTS)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").read_bytes() == b"first"


def test_a_path_is_told_as_it_is_where_the_folder_at_hand_is_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    assert files.near(gone / "run") == Path("run")
    gone.rmdir()
    assert files.near(gone / "run") == gone / "run"
