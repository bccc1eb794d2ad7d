"""A watch on the device for numbers that are not finite."""

import torch
from torch import Tensor, nn

from models.auxresnet import AuxResNet
from system.errors import UserError

NEVER = torch.iinfo(torch.int64).max


class NotFinite(UserError):
    """A loss or a gradient was infinite or not a number."""


class FiniteWatch:
    """Remembers the first step at which each exit's loss, and each parameter's gradient, was not finite.

    Looking costs the device a few small kernels a step; the host waits for it in `check` only.
    """

    def __init__(self, network: AuxResNet, gradients: bool) -> None:
        self.network, self.gradients = network, gradients
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Forget what was; steps are those of this epoch (counted from 0) from here on."""
        self.epoch = epoch
        self.first: Tensor | None = None

    def add(self, step: int, losses: Tensor) -> None:
        """Look at the losses of the exits (K) of a step, and at the gradients that it left."""
        values = losses
        if self.gradients:
            # The quickest norm. It overflows for gradients near 1e19, too, with which a run is as lost.
            norms = torch._foreach_norm([p.grad for _, p in self._moving()])
            values = torch.cat([losses, torch.stack(norms)])
        if self.first is None:
            self.first = torch.full(values.shape, NEVER, device=values.device)
        self.first = torch.where(values.isfinite(), self.first, self.first.clamp(max=step))

    def check(self) -> None:
        """Raise NotFinite naming epoch, batch and exit; waits for the device. To be called before weights are kept."""
        first = [] if self.first is None else self.first.tolist()
        step = min(first, default=NEVER)
        if step == NEVER:
            return
        losses = [(position, "the loss") for position in self.network.exits]
        gradients = [(self._exit_of(name), f"the gradient of {name}") for name, _ in self._moving()]
        bad = [what for what, when in zip(losses + gradients, first, strict=False) if when == step]
        # A gradient runs from the deepest exit to the stem: where it went wrong first is the deepest place.
        bad = [what for what in bad if what in losses] or [max(bad)]
        found = " and ".join(f"{what} of exit {position}" for position, what in bad)
        raise NotFinite(f"{found} is not finite in epoch {self.epoch + 1}, batch {step + 1}; try a lower --LR")

    def _moving(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.network.named_parameters() if p.grad is not None]

    def _exit_of(self, name: str) -> int:
        """The first exit that a parameter leads to."""
        part, index, *_ = name.split(".")
        if part == "stem":
            return self.network.positions[0]
        return int(index) if part == "heads" else self.network.positions[int(index)]
