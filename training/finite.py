"""A watch on the device for numbers that are not finite."""

import torch
from torch import Tensor, nn

from datasets.loaders import Step
from models.multiexit import MultiExit
from system.errors import UserError

NEVER = torch.iinfo(torch.int64).max


class NotFinite(UserError):
    """A loss or a gradient was infinite or not a number."""


class FiniteWatch:
    """Remembers the first step of an epoch at which each exit's loss, and each parameter's gradient, was not finite.

    Looking costs the device a few small kernels a step; the host waits for it in `check` only, which is to be called
    before an epoch ends.
    """

    def __init__(self, network: MultiExit, gradients: bool) -> None:
        self.network, self.gradients = network, gradients
        self.epoch = 0
        self.first: Tensor | None = None  # for each loss and gradient, the index of the step

    def add(self, step: Step, losses: Tensor) -> None:
        """Look at the losses of the exits (K) of a step, and at the gradients that it left."""
        values = losses
        if self.gradients:
            # The quickest norm. A gradient near 1e19 overflows it, too, and a run with such gradients is lost as well.
            norms = torch._foreach_norm([p.grad for _, p in self._moving()])
            values = torch.cat([losses, torch.stack(norms)])
        if self.first is None or step.epoch != self.epoch:
            self.epoch, self.first = step.epoch, torch.full(values.shape, NEVER, device=values.device)
        self.first = torch.where(values.isfinite(), self.first, self.first.clamp(max=step.index))

    def check(self) -> None:
        """Raise NotFinite naming epoch, batch and exit; waits for the device. To be called before weights are kept."""
        first = [] if self.first is None else self.first.tolist()
        earliest = min(first, default=NEVER)
        if earliest == NEVER:
            return
        losses = [(position, "the loss") for position in self.network.exits]
        gradients = [(self.network.exit_of(name), f"the gradient of {name}") for name, _ in self._moving()]
        bad = [what for what, when in zip(losses + gradients, first, strict=False) if when == earliest]
        # A gradient runs from the heads to the stem, the reverse of this order: it went wrong first at the deepest
        # exit, and of its parameters at the last one.
        bad = [what for what in bad if what in losses] or [max(reversed(bad), key=lambda what: what[0])]
        found = " and ".join(f"{what} of exit {position}" for position, what in bad)
        raise NotFinite(f"{found} is not finite in epoch {self.epoch + 1}, batch {earliest + 1}; try a lower --LR")

    def _moving(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.network.named_parameters() if p.grad is not None]
