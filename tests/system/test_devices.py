"""Where a network runs."""

import pytest
import torch
from conftest import network

from system import devices
from system.errors import UserError


def test_several_gpus_share_a_batch(monkeypatch):
    """No GPU here: DataParallel is run with its devices stubbed out, the wrapping and the files are real."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.choose(2) == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert devices.choose(None) == [torch.device("cuda:0")]
    assert devices.choose(0) == [torch.device("cpu")]
    with pytest.raises(UserError, match="--nGPU 4: this machine has 2"):
        devices.choose(4)
    placed = {}
    monkeypatch.setattr(torch.nn, "DataParallel", lambda model, where: placed.setdefault("where", where) and model)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device, **_: placed.setdefault("first", device) and self)
    model = network("ResNet-8")
    devices.place(model, devices.choose(2))
    assert placed == {"first": torch.device("cuda:0"), "where": devices.choose(2)}
    assert not any(name.startswith("module.") for name in model.exit_state(8))


def test_asking_for_gpus_where_there_are_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="--nGPU 4: this machine has no GPUs; give 0 for the CPU"):
        devices.choose(4)
