"""What a training state holds, compared with what the run that reads it would hold itself.

A checksum says that a state is what was written, not who wrote it. PyTorch's optimizers obey whatever they are given,
down to native code that reads past the end of a tensor that is too small.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def like(found: Any, own: Any, name: str) -> Any:
    """A copy of what a state holds under a name, if it has the form of this run's `own`: the same keys, lengths and
    types, and tensors of the same shapes and types that are plain, dense and finite. The copy lies in memory as `own`
    does, because fused optimizers pair a weight and its momentum by their places. Raises ValueError naming the place
    where it has not."""
    if isinstance(own, Tensor):
        return _tensor(found, own, name)
    if isinstance(own, Mapping):
        if not isinstance(found, dict):
            raise ValueError(f"{name} is no dictionary")
        found = {key: dict.__getitem__(found, key) for key in dict.keys(found)}  # whatever else an instance may have
        if odd := sorted(map(str, found.keys() ^ own.keys())):
            raise ValueError(f"{name} {'lacks' if odd[0] in map(str, own) else 'has'} {odd[0][:80]!r}")
        return {key: like(found[key], value, f"{name}.{key}") for key, value in own.items()}
    if type(found) is not type(own):
        raise ValueError(f"{name} is of type {type(found).__name__}, not {type(own).__name__}")
    if isinstance(own, list | tuple):
        if len(found) != len(own):
            raise ValueError(f"{name} has {len(found)} entries, not {len(own)}")
        return type(own)(like(*pair, f"{name}.{index}") for index, pair in enumerate(zip(found, own, strict=True)))
    return found


def _tensor(found: Any, own: Tensor, name: str) -> Tensor:
    if type(found) not in (Tensor, nn.Parameter):
        raise ValueError(f"{name} is no tensor")
    if found.layout is not torch.strided or found.is_nested or found.device.type != "cpu":
        raise ValueError(f"{name} is no plain tensor")
    if (found.dtype, found.shape) != (own.dtype, own.shape):
        given, wanted = (f"{t.dtype} {tuple(t.shape)}" for t in (found, own))
        raise ValueError(f"{name} is {given}, not {wanted}")
    if found.is_conj() or found.is_neg() or not _is_dense(found):
        raise ValueError(f"{name} is a view of other numbers")
    if not found.isfinite().all():
        raise ValueError(f"{name} has numbers that are not finite")
    return torch.empty_like(own, device="cpu", requires_grad=False).copy_(found.detach())


def _is_dense(tensor: Tensor) -> bool:
    """Whether every element has a place of its own, without gaps, in whatever order."""
    places = sorted((stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1)
    expected = 1
    for stride, size in places:
        if stride != expected:
            return False
        expected *= size
    return True
