"""Sets of defaults that go by a name: that of a recipe, or of a data set. What is given explicitly wins over both, a
data set over a recipe. TRAINING.md has the measurements behind `fast`, and behind the epochs that it is meant for."""

import argparse
from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},  # the authors' settings are the defaults
    "fast": {
        "nEpochs": 30,
        "schedule": "onecycle",
        "LR": 0.2,
        "scaleLR": True,
        "optimizer": "muon",
        "weightDecay": 5e-4,
        "decayNorms": False,
        "labelSmoothing": 0.1,
        "alternateFlip": True,
        "precision": "auto",
        "compile": "auto",
    },
}
MEANT_FOR = {"fast": (5, 40)}  # epochs, both included
BY_DATASET: dict[str, dict[str, Any]] = {"DIGITS": {"widen": 1, "nEpochs": 8, "batchsize": 64, "schedule": "onecycle"}}


def outside_recipe(options: argparse.Namespace) -> str | None:
    """What to tell a user whose run has more or fewer epochs than its recipe is meant for; None if it has not."""
    low, high = MEANT_FOR.get(options.recipe, (0, options.nEpochs))
    if low <= options.nEpochs <= high:
        return None
    return (
        f"--recipe {options.recipe} is meant for {low} to {high} epochs, this run has {options.nEpochs}; "
        "TRAINING.md says what becomes of it"
    )
