"""Where networks are found, by name or path, and files that cannot be read, or are being written."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from formats import exit_file
from inference import saved
from programs import PROJECT, assert_one_line_error, deprived, script
from system.errors import UserError

pytestmark = pytest.mark.slow

FIRST = "exit-5.safetensors"


@pytest.mark.parametrize("name", ["../outside", "AuxResNet-14-3/../..", "AuxResNet-14-3\0", ""])
def test_names_that_lead_elsewhere_are_no_names(name, tmp_path):
    if "\0" in name:  # the system passes no such argument on; asked directly, the finder finds nothing
        with pytest.raises(UserError):
            saved.find_files(name, name, [tmp_path])
    else:
        assert_one_line_error(
            script("test.py", "DIGITS", name, "--save", tmp_path), 2, "names are" if name else "is empty"
        )


@pytest.mark.parametrize("folder", [".", "/etc", "run", "my-ResNet-photos", "DIGITS-AuxResNet-8-2/", "x/AuxResNet-8-2"])
def test_a_folder_without_exit_files_is_named(folder, tmp_path):
    (tmp_path / folder).mkdir(exist_ok=True, parents=True)
    for words in (("test.py", "DIGITS", folder), ("predict.py", folder, "picture.png")):
        found = script(*words, cwd=tmp_path)
        assert_one_line_error(found, 1, f"{Path(folder)} holds no exit-<position>.safetensors")


def test_a_run_without_exit_files_goes_before_a_network_of_its_name(tmp_path):
    run = tmp_path / "CIFAR10-AuxResNet-56-5"
    run.mkdir()
    (run / "opt.json").touch()
    process = script("export.py", "CIFAR10", "AuxResNet-56-5", "--check", "0", "--save", tmp_path)
    assert_one_line_error(process, 1, f"{run} holds no exit-<position>.safetensors")


@pytest.mark.parametrize("link", ["folder", "file"])
def test_links_that_lead_out_of_the_folders_searched(link, finished, tmp_path):
    run = tmp_path / "DIGITS-AuxResNet-14-3"
    if link == "folder":
        run.symlink_to(finished[1])
    else:
        run.mkdir()
        (run / "exit-14.safetensors").symlink_to(finished[1] / "exit-14.safetensors")
    process = script("test.py", "DIGITS", "AuxResNet-14-3", "--save", tmp_path)
    assert_one_line_error(process, 1, "leads out of", str(run))


def test_save_is_searched_before_a_run_of_the_same_name_here(finished, run_copy):
    here, run = run_copy
    (run / FIRST).unlink()
    assert_one_line_error(script("test.py", "DIGITS", run.name, "--exit", 5, cwd=here), 1, "no exit 5")
    other = script("test.py", "DIGITS", run.name, "--exit", 5, "--save", finished[0], cwd=here)
    assert other.stdout == script("test.py", "DIGITS", finished[1], "--exit", 5).stdout
    path = script("test.py", "DIGITS", f"./{run.name}", "--exit", 5, "--save", finished[0], cwd=here)
    assert_one_line_error(path, 1, "no exit 5")


def test_a_folder_named_like_an_exit_file_and_files_of_other_names(run_copy, tmp_path):
    (tmp_path / "exit-8.safetensors").mkdir()
    assert_one_line_error(script("test.py", "DIGITS", tmp_path / "exit-8.safetensors"), 1, "holds no exit-<position>")
    _, run = run_copy
    shutil.copy(run / "exit-5.safetensors", run / "exit-5 (copy).safetensors")
    assert script("test.py", "DIGITS", run).stdout.startswith("error ")


def test_files_that_a_run_is_writing_are_read_when_they_fit(finished, run_copy, monkeypatch):
    """The first exit is of the next epoch already, the others follow while the reader waits."""
    _, folder = run_copy
    newer = {name: tensor + 1 for name, tensor in load_file(folder / FIRST).items()}
    (folder / FIRST).write_bytes(exit_file.content(newer, exit_file.read_header(folder / FIRST)))
    files = exit_file.files_in(folder)
    with pytest.raises(UserError, match="another run or epoch"):
        saved.load(files)
    (folder / ".lock").write_text("process 1 on here\n")
    monkeypatch.setattr(time, "sleep", lambda seconds: shutil.copy(finished[1] / FIRST, folder / FIRST))
    assert saved.load(files).files == files


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(finished, run_copy, monkeypatch):
    """Its weights would be told to have the error of an epoch before."""
    last = "exit-14.safetensors"
    path, real = run_copy[1] / last, exit_file.read_weights
    weights, header = load_file(path), exit_file.read_header(path)

    def replaced(*arguments):
        path.write_bytes(exit_file.content(weights, {**header, "epochs": header["epochs"] + 1}))
        return real(*arguments)

    monkeypatch.setattr(exit_file, "read_weights", replaced)
    with pytest.raises(UserError, match=f"{last} was replaced"):
        saved.load({14: path})
    path.write_bytes(exit_file.content(weights, header))
    (path.parent / ".lock").write_text("process 1 on here\n")
    assert saved.load({14: path}).header["epochs"] == header["epochs"] + 1


@pytest.mark.parametrize("target", [FIRST, ""])
def test_what_may_not_be_read_is_not_called_missing(target, run_copy):
    _, folder = run_copy
    command = deprived([sys.executable, "test.py", "DIGITS", str(folder), "--exit", "all"])
    (folder / target).chmod(0)
    process = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    (folder / target).chmod(0o700)
    assert_one_line_error(process, 1, target or "AuxResNet-14-3 cannot be read", "Permission denied")
