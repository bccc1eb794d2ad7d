"""Loss and errors, summed on the device over the batches of an epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Result:
    """Means over the pictures of an epoch so far: the weighted loss, and the top-1 error of each exit in percent."""

    loss: float
    errors: tuple[float, ...]


class Sums:
    """Running sums on the device: loss × pictures, and the wrong answers of each exit."""

    def __init__(self, exits: int, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device)
        self.wrong = torch.zeros(exits, dtype=torch.int64, device=device)
        self.pictures = 0

    def add(self, loss: Tensor, logits: Sequence[Tensor], targets: Tensor) -> None:
        """Count a batch: its mean loss, the logits of each exit (N×classes), its N targets."""
        self.loss += loss.detach() * len(targets)
        self.wrong += torch.stack([z.argmax(1) for z in logits]).ne(targets).sum(1)
        self.pictures += len(targets)

    def result(self) -> Result:
        """The means so far; waits for the device."""
        wrong = self.wrong.tolist()
        return Result(self.loss.item() / self.pictures, tuple(100 * count / self.pictures for count in wrong))

    def state(self) -> dict[str, Any]:
        """The sums, for a training state."""
        return {"loss": self.loss, "wrong": self.wrong, "pictures": self.pictures}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.loss.copy_(state["loss"])
        self.wrong.copy_(state["wrong"])
        self.pictures = state["pictures"]
