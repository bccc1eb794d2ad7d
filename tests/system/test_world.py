"""Processes that are joined tell each other what they should, and one that is alone waits for nobody."""

import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore

from programs import together
from system import rollcall, world


def divided(*numbers):
    """For each number as many of it, plus 1; and which of them this process made."""
    tensors = [torch.full((number,), float(number)) for number in numbers]
    mine = []

    def work(own):
        mine.extend(map(len, own))
        return [tensor + 1 for tensor in own]

    return [tensor.tolist() for tensor in world.divided(tensors, len, work, torch.float32)], mine


def told():
    numbers = torch.tensor([world.rank() + 1, 2**40 + world.rank()])
    sums, means = [torch.tensor(1.0), torch.tensor([1, 2])], [torch.full((2,), float(world.rank()))]
    parts = (0.5, 0.25, 0.25)
    world.combine(sums, means, parts[world.rank()])
    return {
        "place": (world.rank(), world.size(), world.host_rank(), world.host_size(), world.is_first()),
        "own": list(world.own(range(8))),
        "turns": [list(turn) for turn in world.turns(iter("abcde"))],
        "share": world.broadcast(lambda: {"rank": world.rank(), "tensor": torch.arange(3), "plain": (1, [None, "x"])}),
        "total": world.total(numbers).tolist(),
        "highest": world.highest(world.rank()),
        "combine": (sums[0].item(), sums[1].tolist(), means[0].tolist()),
        "divided": divided(5, 1, 2, 7),
        "few": divided(2),
    }


def test_three_processes_tell_each_other():
    answers = together(3, told)
    assert [answer["place"] for answer in answers] == [(rank, 3, rank, 3, rank == 0) for rank in range(3)]
    assert [answer["own"] for answer in answers] == [[0, 3, 6], [1, 4, 7], [2, 5]]
    assert [answer["turns"] for answer in answers] == [[["a"], ["d"]], [["b"], ["e"]], [["c"], []]]
    for answer in answers:
        assert answer["share"]["tensor"].tolist() == [0, 1, 2]
        assert (answer["share"]["rank"], answer["share"]["plain"]) == (0, (1, [None, "x"]))
        assert answer["total"] == [6, 3 * 2**40 + 3]
        assert answer["highest"] == 2
        assert answer["combine"] == (3.0, [3, 6], [0.75, 0.75])
        assert answer["divided"][0] == [[6.0] * 5, [2.0], [3.0] * 2, [8.0] * 7]
        assert answer["few"][0] == [[3.0] * 2]
    assert [answer["divided"][1] for answer in answers] == [[7], [5], [2, 1]]
    assert [answer["few"][1] for answer in answers] == [[2], [], []]


def host_told():
    """What the first process of a host has for all, after another one wrote into it, and the file that has it."""
    found = world.first_of_host(lambda: {"tensor": torch.zeros(10**5), "plain": ("x", None), "rank": world.rank()})
    shared = world.broadcast_on_host(found)
    if world.rank() == 1:
        shared["tensor"][0] = 1
    world.total(torch.zeros(1))  # after that
    address, files = shared["tensor"].data_ptr(), map(str.split, Path("/proc/self/maps").read_text().splitlines())
    (file,) = [rest[3] for place, *rest in files if holds(place, address)]
    return found is None, shared["tensor"].sum().item(), shared["plain"], shared["rank"], file


def holds(place, address):
    first, end = (int(number, 16) for number in place.split("-"))
    return first <= address < end


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process has its own")
def test_processes_of_a_host_have_tensors_in_memory_once():
    answers = together(3, host_told)
    assert [answer[:2] for answer in answers] == [(False, 0.0), (True, 1.0), (True, 0.0)]
    assert all(answer[2:] == (("x", None), 0, answers[0][4]) for answer in answers)
    assert answers[0][4] != "0"


def drawn():
    return [world.draw_apart(0, 1, step) or torch.rand(4).tolist() for step in (3, 4, 3)]


def test_processes_draw_apart_and_always_the_same():
    answers = together(2, drawn)
    for first, second, again in answers:
        assert first == again != second
    assert answers[0][0] != answers[1][0]


def waited():
    """Whether all processes are still there after one has worked for longer than they would be silent otherwise."""
    world.PATIENCE = timedelta(seconds=6)
    with world.joined():
        world.first_of_host(lambda: time.sleep(9))
        return world.total(torch.tensor(1)).item()


def test_processes_wait_for_the_one_that_reads_pictures():
    assert together(2, waited, joined=False) == [2, 2]


def test_alone_a_process_is_the_world(monkeypatch):
    """Also under a launcher that is not torchrun."""
    monkeypatch.setenv("WORLD_SIZE", "many")
    tensor = torch.tensor([3])
    assert (world.rank(), world.size(), world.is_first()) == (0, 1, True)
    assert world.total(tensor) is tensor
    assert world.broadcast(lambda: tensor) is tensor
    assert world.broadcast_on_host(world.first_of_host(lambda: tensor)) is tensor
    assert world.highest(3) == 3
    assert list(world.own("abc")) == ["a", "b", "c"]
    assert list(world.turns("ab")) == [["a"], ["b"]]
    assert world.place_in_words() == ""
    with world.joined():
        assert world.size() == 1


def agreed():
    agreement = world.Agreement()
    return [agreement.due() for _ in range(200)]


def test_processes_agree_on_when_to_ask_each_other():
    answers = together(2, agreed)
    assert answers[0] == answers[1]
    assert answers[0][0]
    assert sum(answers[0]) < 20
    assert all(agreed())


def test_the_word_of_a_dead_process_is_not_taken_for_that_of_a_living_one():
    store = HashStore()
    store.set("here/1", "0" * 32)  # of one that died
    with pytest.raises(RuntimeError, match="after 1 seconds some have not come"):
        rollcall.assembled(store, 0, 2, timedelta(seconds=1))
