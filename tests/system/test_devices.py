"""Where a network runs."""

import sys
import threading

import pytest
import torch

from examples import network
from programs import together
from system import devices, world
from system.errors import UserError


def gpus(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_several_gpus_share_a_batch(monkeypatch):
    """No GPU here: which devices are chosen and handed on is real, DataParallel and moving a model stand aside."""
    gpus(monkeypatch, 2)
    monkeypatch.setattr(devices, "check_works", lambda device: None)
    assert devices.choose(2) == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert devices.choose(None) == [torch.device("cuda:0")]
    assert devices.choose(0) == [torch.device("cpu")]
    with pytest.raises(UserError, match="--nGPU 4: this machine has 2"):
        devices.choose(4)
    placed = {}
    monkeypatch.setattr(devices, "Shared", lambda model, where: placed.setdefault("where", where) and model)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device, **_: placed.setdefault("first", device) and self)
    model = network("ResNet-8")
    devices.place(model, devices.choose(2))
    assert placed == {"first": torch.device("cuda:0"), "where": devices.choose(2)}


def test_asking_for_gpus_where_there_are_none(monkeypatch):
    gpus(monkeypatch, 0)
    with pytest.raises(UserError, match="--nGPU 4: this machine has no GPUs; give --nGPU 0 for the CPU"):
        devices.choose(4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU of this machine works")
def test_gpus_that_do_not_work_are_not_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # it is there, and its driver too old
    assert devices.choose(None) == [torch.device("cpu")]
    with pytest.raises(UserError, match="--nGPU 1: this machine has no GPUs"):
        devices.choose(1)
    gpus(monkeypatch, 1)
    with pytest.raises(UserError, match=r"^cuda:0 cannot be used: .*; give --nGPU 0 for the CPU$"):
        devices.choose(None)


def chosen_by_hosts_of_which_one_has_a_gpu():
    """A GPU that this machine lacks is made up in the second process."""
    with pytest.MonkeyPatch.context() as patch:
        gpus(patch, 2 * world.rank())
        patch.setattr(torch.cuda, "set_device", lambda _: None)
        patch.setattr(devices, "check_works", lambda _: None)
        try:
            return str(devices.choose(None))
        except UserError as error:
            return str(error)


def test_processes_on_different_kinds_of_devices_do_not_wait_for_each_other():
    first, second = together(2, chosen_by_hosts_of_which_one_has_a_gpu)
    assert first == "[device(type='cpu')]"
    assert second.startswith("this process would compute on cuda, the first one on cpu; give all --nGPU 0")


def test_each_of_several_processes_has_a_gpu_of_its_own(monkeypatch):
    for name, value in (("size", 2), ("host_size", 2), ("host_rank", 1)):
        monkeypatch.setattr(world, name, lambda value=value: value)
    monkeypatch.setattr(devices, "check_works", lambda device: None)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    gpus(monkeypatch, 2)
    assert devices._of_this_host(None) == [torch.device("cuda:1")]
    with pytest.raises(UserError, match="--nGPU 2: each of several processes has one GPU"):
        devices._of_this_host(2)
    gpus(monkeypatch, 1)
    with pytest.raises(UserError, match="--nproc_per_node 2: this machine has 1 GPUs; give at most 1"):
        devices._of_this_host(None)


class Told(torch.nn.Module):
    """Tells what its thread computes in on GPUs."""

    def forward(self, images):
        return torch.get_autocast_dtype("cuda")


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_gpus_compute_in_the_precision_that_was_asked_for(monkeypatch):
    """In threads, as DataParallel's are; which GPU each one takes is left out."""

    def in_threads(replicas, inputs, kwargs, _):
        def work(index):
            found[index] = replicas[index](*inputs[index], **kwargs[index])

        found = [None] * len(replicas)
        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(replicas))]
        for thread in threads:
            thread.start()
            thread.join()
        return found

    monkeypatch.setattr(sys.modules["torch.nn.parallel.data_parallel"], "parallel_apply", in_threads)
    shared = devices.Shared(Told())
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cuda", dtype):
            assert shared.parallel_apply([Told(), Told()], [(0,), (0,)], [{}, {}]) == [dtype, dtype]
