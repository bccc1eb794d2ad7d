"""The optimizers of a training: SGD with Nesterov momentum, alone or beside Muon."""

from dataclasses import dataclass
from typing import Any

import torch

from models.multiexit import MultiExit
from training.likeness import like
from training.muon import Muon


@dataclass(frozen=True)
class Optimization:
    """How the weights move, but for the course of the learning rate.

    `name` is `sgd`, or `muon`, which moves the kernels of the blocks by Muon and the rest by SGD. Without
    `decay_norms`, batch norms and biases do not decay (Goyal et al., "Accurate, Large Minibatch SGD", arXiv 1706.02677,
    section 5.3).
    """

    name: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay_norms: bool = True

    def of(self, network: MultiExit, lr: float, dtype: torch.dtype = torch.float32) -> list[torch.optim.Optimizer]:
        """The optimizers of a network's parameters at a learning rate. Muon computes in `dtype`, float32 or
        bfloat16."""
        kernels = [p for p in network.segments.parameters() if p.ndim == 4] if self.name == "muon" else []
        spared = [] if self.decay_norms else [p for p in network.parameters() if p.ndim == 1]
        elsewhere = {id(p) for p in [*kernels, *spared]}
        rest = [p for p in network.parameters() if id(p) not in elsewhere]
        groups = [{"params": rest, "weight_decay": self.weight_decay}, {"params": spared, "weight_decay": 0.0}]
        sgd = torch.optim.SGD(
            [group for group in groups if group["params"]],
            lr=lr,
            momentum=self.momentum,
            nesterov=self.momentum > 0,
            fused=True,
        )
        return [sgd, Muon(kernels, lr, self.momentum, self.weight_decay, dtype)] if kernels else [sgd]


def at_rest(optimizer: torch.optim.Optimizer) -> None:
    """Give an SGD that has no momenta yet momenta of 0, with which its first step is the same. Without, fused SGD
    (PyTorch 2.14) makes them at its first step, and where a gradient scaler skips that, they are what happened to be in
    memory."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            if parameter.requires_grad:
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def restore(optimizer: torch.optim.Optimizer, saved: dict[str, Any], name: str, begun: bool) -> None:
    """Go on with the momenta that `state_dict` gave; learning rates and all settings stay the optimizer's own. An
    optimizer that has not `begun` may have none yet. Raises KeyError or ValueError where they are those of another."""
    own = optimizer.state_dict()
    numbers = [group["params"] for group in own["param_groups"]]
    if [group["params"] for group in saved["param_groups"]] != numbers:
        raise ValueError(f"{name} moves other parameters")
    momenta = _momenta(optimizer) if begun or saved["state"] else {}
    optimizer.load_state_dict({**own, "state": like(saved["state"], momenta, name)})


def _momenta(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, torch.Tensor]]:
    """What an optimizer keeps of each parameter that learns, by its number, after its first step: tensors of the same
    form."""
    parameters = [(p, group["momentum"]) for group in optimizer.param_groups for p in group["params"]]
    muon = isinstance(optimizer, Muon)  # which keeps a momentum even where that is 0
    name = "momentum" if muon else "momentum_buffer"
    return {n: {name: p} for n, (p, momentum) in enumerate(parameters) if p.requires_grad and (muon or momentum)}
