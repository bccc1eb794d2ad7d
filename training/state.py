"""Where a run stands: the epochs behind it, the step it has come to, and all that going on to the same bits needs."""

from typing import Any

import torch

from formats import log_file
from models import exits, networks
from models.metrics import Sums
from system import devices
from system.errors import failures_as, reason
from system.strict import is_number
from training.clock import Clock
from training.likeness import like
from training.plan import Plan
from training.trainer import Trainer

FIELDS = ("network", "training", "random", "random_cuda", "log", "step", "sums", "seconds")  # of `State.saved`
ELSEWHERE = ("format", "options", "fit", "data", "extended", "origin")  # what else it has; who reads that checks it
FORMERLY = ("best",)  # what older versions wrote besides, and the log says, too


class State:
    """The log of the epochs that are done, and the sums and seconds of the one that is not. `evaluated_name` is what
    the log calls the pictures that are not trained on: `test`, or `validation`, on which the best epoch is kept."""

    def __init__(self, trainer: Trainer, evaluated_name: str) -> None:
        self.trainer, self.evaluated_name = trainer, evaluated_name
        self.log: list[dict[str, Any]] = []  # a row for each epoch
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Begin to count the steps, sums and seconds of another epoch."""
        self.steps_done = 0  # of this epoch
        self.sums = Sums(len(self.trainer.network.exits), self.trainer.device)
        self.clock = Clock()

    @property
    def epochs_done(self) -> int:
        """How many epochs are trained, tested and logged."""
        return len(self.log)

    @property
    def begun(self) -> bool:
        """Whether anything has been learnt."""
        return bool(self.log or self.steps_done)

    def kept_epoch(self) -> int | None:
        """The epoch, counted from 1, of which the exits are kept: of those that were tested the last, or, with a
        validation split, the first that did best; None where none was tested. Epochs are compared by the deepest exit
        that learns: one whose loss weighs 0 stays as it was drawn."""
        learning = exits.learning(self.trainer.exit_weights.weights, self.trainer.network.exits)
        column = log_file.error_column(self.evaluated_name, learning[-1])
        tested = {row["epoch"]: row[column] for row in self.log if row[column] is not None}
        validates = self.evaluated_name == "validation"
        return min(tested, key=tested.get, default=None) if validates else max(tested, default=None)

    def saved(self) -> dict[str, Any]:
        """All of it, with the weights and what training needs, for a training state. Raises NotFinite where there is
        nothing worth going on from."""
        self.trainer.watch.check()
        return {
            "network": self.trainer.network.state_dict(),
            "training": self.trainer.state(),
            "random": torch.get_rng_state(),
            "random_cuda": devices.generators(self.trainer.devices),
            "log": self.log,
            "step": self.steps_done,
            "sums": self.sums.state(),
            "seconds": self.clock.seconds(),
        }

    def restore(self, saved: dict[str, Any], plan: Plan) -> None:
        """Go on from what `saved` gave, in the course of `plan`. Raises UserError where it is not what this run would
        have given."""
        with failures_as(lambda error: f"the training state does not fit the options of its run: {reason(error)}"):
            self._restore_progress(saved, plan)
            weights = like(saved["network"], self.trainer.network.state_dict(), "network")
            if odd := networks.odd_values(weights):
                raise ValueError(odd)
            self.trainer.network.load_state_dict(weights)
            self.trainer.restore(saved["training"], self.epochs_done * plan.steps + self.steps_done)
            torch.set_rng_state(like(saved["random"], torch.get_rng_state(), "random"))
            own = devices.generators(self.trainer.devices)
            if len(saved["random_cuda"]) == len(own):
                devices.set_generators(self.trainer.devices, like(saved["random_cuda"], own, "random_cuda"))

    def _restore_progress(self, saved: dict[str, Any], plan: Plan) -> None:
        """The log, and what of its next epoch is done; ValueError where there cannot be such."""
        if odd := saved.keys() - {*FIELDS, *ELSEWHERE, *FORMERLY}:
            raise ValueError(f"it has {', '.join(map(str, odd))}")
        columns = log_file.columns(self.trainer.network.exits, self.evaluated_name)
        self.log, self.steps_done = log_file.checked(saved["log"], columns), saved["step"]
        left = plan.epochs - len(self.log)
        if left < 0 or not is_number(self.steps_done, 0, plan.steps if left else 0, int):
            raise ValueError(
                f"it is {len(self.log)} epochs and {self.steps_done} steps into a run of {plan.epochs} epochs"
            )
        self.clock = Clock.restored(saved["seconds"])
        sums = like(saved["sums"], self.sums.state(), "sums")
        done, wrong = sums["pictures"], sums["wrong"]
        if done != plan.pictures_after(self.steps_done) or not ((wrong >= 0) & (wrong <= done)).all():
            raise ValueError(f"sums are not those of {self.steps_done} steps, as this version divides an epoch")
        self.sums.restore(sums)
