"""Where a run stands: the epochs behind it, the step it has come to, and all that going on to the same bits needs."""

import time
from typing import Any

import torch

from models.metrics import Sums
from system.errors import UserError
from training.trainer import Trainer


class State:
    """The log of the epochs that are done, and the sums and seconds of the one that is not."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.log: list[dict[str, Any]] = []  # a row for each epoch
        self.best: float | None = None  # the lowest error of the last exit on the validation pictures, in percent
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Nothing of the next epoch is done yet."""
        self.step = 0  # steps done in this epoch
        self.sums = Sums(len(self.trainer.network.exits), self.trainer.device)
        self._seconds = 0.0
        self.start_clock()

    @property
    def epochs_done(self) -> int:
        """How many epochs are trained, tested and logged."""
        return len(self.log)

    def start_clock(self) -> None:
        """Count the seconds of the epoch from now on, not those since the run was set up."""
        self._clock = time.monotonic()

    def seconds(self) -> float:
        """Spent on this epoch so far, whether the run was interrupted or not."""
        return self._seconds + time.monotonic() - self._clock

    def saved(self) -> dict[str, Any]:
        """All of it, with the weights and what training needs, for a training state. Raises NotFinite where there is
        nothing worth going on from."""
        self.trainer.watch.check()
        return {
            "network": self.trainer.network.state_dict(),
            "training": self.trainer.state(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all(),
            "log": self.log,
            "best": self.best,
            "step": self.step,
            "sums": self.sums.state(),
            "seconds": self.seconds(),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from what `saved` gave. Raises UserError where it is that of another run."""
        try:
            self.trainer.network.load_state_dict(saved["network"])
            self.trainer.restore(saved["training"])
            torch.set_rng_state(saved["random"])
            if len(saved["random_cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(saved["random_cuda"])
            self.log, self.best = saved["log"], saved["best"]
            self.step, self._seconds = saved["step"], saved["seconds"]
            self.sums.restore(saved["sums"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"the training state does not fit the options of its run: {reason}") from error
