"""A watch on the device for numbers that are not finite."""

from collections.abc import Mapping

import torch
from torch import Tensor

from datasets.loaders import Step
from models.multiexit import MultiExit
from system.errors import UserError

NEVER = torch.iinfo(torch.int64).max


class NotFinite(UserError):
    """A loss of training or testing, a gradient or a batch norm statistic was infinite or not a number."""

    def __init__(self, what: str, when: str) -> None:
        super().__init__(f"{what} is not finite {when}; try a lower --LR")


class FiniteWatch:
    """Remembers the first step of an epoch at which each exit's loss, and with `gradients` that of each parameter that
    learns, was not finite. The averages of batch norms, `statistics` by name, are looked at in `check` only: once one
    is not finite, it stays so.

    Looking costs the device a few small kernels a step; the host waits for it in `check` only, which is to be called
    before an epoch ends.
    """

    def __init__(self, network: MultiExit, statistics: Mapping[str, Tensor], gradients: bool) -> None:
        self.network, self.statistics = network, statistics
        moving = {name: p for name, p in network.named_parameters() if gradients and p.requires_grad}
        self.names, self.moving = list(moving), list(moving.values())
        self.epoch = 0
        self.first: Tensor | None = None  # for each loss and gradient, the index of the step

    def add(self, step: Step, losses: Tensor) -> None:
        """Look at the losses of the exits (K) of a step, and at the gradients that it left."""
        values = losses
        if self.moving:
            # The quickest norm. A gradient near 1e19 overflows it, too, and a run with such gradients is lost as well.
            values = torch.cat([losses, torch.stack(torch._foreach_norm([p.grad for p in self.moving]))])
        if self.first is None or step.epoch != self.epoch:
            self.epoch, self.first = step.epoch, torch.full(values.shape, NEVER, device=values.device)
        self.first = torch.where(values.isfinite(), self.first, self.first.clamp(max=step.index))

    def check(self) -> None:
        """Raise NotFinite naming epoch, batch and exit of a loss or gradient, or else the epoch and the batch norm
        statistic that is not finite now. Waits for the device, once; to be called before weights are kept."""
        fine = torch.stack(torch._foreach_norm(list(self.statistics.values()), torch.inf)).isfinite()
        told = (fine.long() if self.first is None else torch.cat([self.first, fine.long()])).tolist()
        first, fine = told[: -len(fine)], told[-len(fine) :]
        if (earliest := min(first, default=NEVER)) < NEVER:
            raise NotFinite(self._gone_wrong(first, earliest), f"in epoch {self.epoch + 1}, batch {earliest + 1}")
        # A batch is normalised by statistics of its own: losses do not show what their average has come to.
        if bad := [name for name, is_fine in zip(self.statistics, fine, strict=True) if not is_fine]:
            raise NotFinite(f"the batch norm statistic {bad[0]}", f"in epoch {self.epoch + 1}")

    def _gone_wrong(self, first: list[int], earliest: int) -> str:
        """Of the losses and gradients that were not finite at the earliest step, the one that was so first."""
        losses = [(position, "the loss") for position in self.network.exits]
        gradients = [(self.network.exit_of(name), f"the gradient of {name}") for name in self.names]
        bad = [what for what, when in zip(losses + gradients, first, strict=True) if when == earliest]
        # A gradient runs from the heads to the stem, the reverse of this order: it went wrong first at the deepest
        # exit, and of its parameters at the last one.
        bad = [what for what in bad if what in losses] or [max(reversed(bad), key=lambda what: what[0])]
        return " and ".join(f"{what} of exit {position}" for position, what in bad)
