"""Training states that are damaged, of another version, or made to harm."""

import errno
import sys
from pathlib import Path

import pytest
import torch

import checkpoints
from examples import Trap, flipped
from formats import state_file
from programs import assert_one_line_error, script
from runs import exit_files, last_state, resume
from system.errors import UserError

pytestmark = pytest.mark.slow


def torn(content):
    return content[: len(content) // 2]


@pytest.mark.parametrize("damage", [torn, flipped, lambda content: b""])
def test_a_damaged_state_is_noticed_and_the_one_before_it_used(damage, run_copy, finished, capsys):
    save, folder = run_copy
    latest = folder / "latest.pt"
    spoilt = damage(latest.read_bytes())
    latest.write_bytes(spoilt)
    resume(save)
    told = capsys.readouterr().err
    assert f"{latest} is damaged" in told
    assert f"the damaged one is kept as {folder / 'damaged.pt'}" in told
    assert (folder / "damaged.pt").read_bytes() == spoilt
    assert exit_files(folder) == exit_files(finished[1])


def test_a_damaged_state_takes_no_good_one_s_place(run_copy, monkeypatch):
    """A run that went on from the state before it is killed in its next save, before the new state is in its place."""
    _, folder = run_copy
    (folder / "latest.pt").write_bytes(torn((folder / "latest.pt").read_bytes()))
    state = state_file.take_up(folder)
    real = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, to: sys.exit(9) if path.suffix == ".tmp" else real(path, to))
    with pytest.raises(SystemExit):
        checkpoints.RunFiles(folder, ()).write_state(state)
    assert state_file.read(folder)[0]["log"] == state["log"]


def test_a_crash_between_the_two_renames_of_a_save(run_copy, finished, capsys):
    save, folder = run_copy
    (folder / "latest.pt").rename(folder / "previous.pt")
    resume(save)
    assert f"going on from the state before it, {folder / 'previous.pt'}" in capsys.readouterr().err
    assert exit_files(folder) == exit_files(finished[1])


def test_both_states_damaged(run_copy):
    save, folder = run_copy
    for name in ("latest.pt", "previous.pt"):
        (folder / name).write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"previous\.pt is damaged"):
        resume(save)


def test_a_state_of_another_format_is_refused_by_name(run_copy):
    save, folder = run_copy
    for _ in range(2):
        checkpoints.RunFiles(folder, ()).write_state({"format": 99})
    with pytest.raises(UserError, match="format 99; this program reads 3"):
        resume(save)


def test_a_state_that_another_program_or_another_moment_can_read_is_not_put_aside(run_copy, monkeypatch):
    """That of a newer version; one that the disk does not give now."""
    save, folder = run_copy
    content = (folder / "latest.pt").read_bytes()
    checkpoints.RunFiles(folder, ()).write_state({"format": 99})
    with pytest.raises(UserError, match="format 99; this program reads 3"):
        resume(save)
    (folder / "latest.pt").write_bytes(content)

    def failing(path):
        raise UserError(f"{path} cannot be read: Input/output error") from OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched, pytest.raises(UserError, match=r"latest\.pt cannot be read: Input/output"):
        patched.setattr(state_file.files, "read", failing)
        state_file.take_up(folder)
    assert not (folder / "damaged.pt").exists()
    assert state_file.take_up(folder)["log"] == last_state(folder)["log"]


def test_memory_that_is_short_is_not_taken_for_damage(run_copy, monkeypatch):
    def load(*_, **__):
        raise MemoryError

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(MemoryError):
        resume(run_copy[0])


def test_a_malicious_pickle_is_refused_and_not_executed(run_copy, tmp_path):
    save, folder = run_copy
    trap = tmp_path / "trap"
    for name in ("latest.pt", "previous.pt"):
        torch.save({"format": 3, "options": Trap(trap)}, folder / name)
    with pytest.raises(UserError, match="damaged"):
        resume(save)
    for _ in range(2):  # with the right checksum
        checkpoints.RunFiles(folder, ()).write_state({"options": Trap(trap)})
    with pytest.raises(UserError, match="cannot be read as a training state: it has something else in it than tensors"):
        resume(save)
    torch.save(Trap(trap), folder / "exit-5.safetensors")
    process = script("test.py", "DIGITS", folder / "exit-5.safetensors")
    assert_one_line_error(process, 1, str(folder / "exit-5.safetensors"))
    assert not trap.exists()
