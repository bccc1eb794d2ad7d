"""A word about memory before much of it is taken."""

import pytest

from datasets import catalog, splits
from datasets.sizing import Sizing
from system import containers, memory, world
from system.errors import UserError


def test_much_memory_is_said_little_is_not(capsys, monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: 2 * 10**9)
    memory.announce("20 pictures of 224×224", 3_010_560, "")
    assert capsys.readouterr() == ("", "")
    memory.announce("10,000 pictures of 224×224", 1_505_280_000, "")
    assert capsys.readouterr().err == "10,000 pictures of 224×224: 1.5 GB of memory\n"


def test_more_than_there_is_is_refused_with_advice():
    with pytest.raises(UserError, match=r"^x take 1,000,000\.0 GB of memory, of which [0-9.]+ GB are free; do y$"):
        memory.announce("x", 10**15, "do y")


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("held_out", [0, 2])
def test_pictures_of_a_folder_are_counted_before_any_is_read(held_out, processes, tmp_path, monkeypatch):
    monkeypatch.setattr(world, "host_size", lambda: processes)
    for split, count in (("train", 6), ("test", 2)):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count // 2):
                (tmp_path / split / name / f"{index}.png").write_text("no picture: to read it would fail")
    side, margin = 224, 2 * 28
    train, test = 6 * 3 * (side + margin) ** 2, 2 * 3 * side**2
    # What is divided is there twice while it is copied, and so is what is given to other processes.
    taken = 2 * train if held_out else processes * (train + test)
    found = catalog.find(str(tmp_path), tmp_path, sizing=Sizing(side), padding="black")
    monkeypatch.setattr(memory, "free", lambda: taken - 1)
    with pytest.raises(
        UserError, match=r"8 pictures of 224×224 take .* are free; lower --inputSize, or train on fewer"
    ):
        splits.for_training(found, None, held_out)
    monkeypatch.setattr(memory, "free", lambda: taken)
    with pytest.raises(UserError, match=r"0\.png is no picture"):
        splits.for_training(found, None, held_out)
    monkeypatch.setattr(memory, "free", lambda: test - 1)
    with pytest.raises(UserError, match="2 pictures of 224×224 take"):
        splits.for_testing(catalog.find(str(tmp_path), tmp_path, sizing=Sizing(side)))


@pytest.mark.parametrize(
    ("own", "top", "limit", "used", "cached", "unlimited"),
    [
        ("0::/job", "", "memory.max", "memory.current", "inactive_file", "max"),
        ("7:memory:/job", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", 2**63 - 1),
    ],
)
def test_the_limits_of_a_container_count(own, top, limit, used, cached, unlimited, tmp_path, monkeypatch):
    """Versions 2 and 1 of Linux's control groups, as a container sees them; this machine may have none."""
    there = memory.free()
    assert there is None or there > 1e6
    monkeypatch.setattr(containers, "GROUPS", tmp_path)
    monkeypatch.setattr(containers, "OWN", tmp_path / "own")
    (tmp_path / "own").write_text(f"{own}\n")
    (tmp_path / top / "job").mkdir(parents=True)
    for group, most in ((tmp_path / top, unlimited), (tmp_path / top / "job", 3000)):
        (group / limit).write_text(f"{most}\n")
        (group / used).write_text("2500\n")
        (group / "memory.stat").write_text(f"anon 100\n{cached} 400\n")
    assert memory.free() == 900
