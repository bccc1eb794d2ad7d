"""Sets of defaults that go by a name: that of a recipe, or of a data set. What is given explicitly wins over both, a
data set over a recipe. TRAINING.md has what was measured of `fast` and `long`."""

import argparse
from typing import Any

FAST: dict[str, Any] = {
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
}
# In so many epochs whole pictures, always with the same edges, are learnt by heart.
LONG = FAST | {"nEpochs": 60, "padding": "reflect", "cutout": 12}
# The authors' settings are the plain defaults.
RECIPES: dict[str, dict[str, Any]] = {"paper": {}, "fast": FAST, "long": LONG}
MEANT_FOR = {"fast": (5, 40), "long": (40, 120)}  # epochs, both included
BY_DATASET: dict[str, dict[str, Any]] = {"DIGITS": {"widen": 1, "nEpochs": 8, "batchsize": 64, "schedule": "onecycle"}}


def outside_recipe(options: argparse.Namespace) -> str | None:
    """What to tell a user whose run has more or fewer epochs than its recipe is meant for; None if it has not."""
    fitting = [recipe for recipe, (low, high) in MEANT_FOR.items() if low <= options.nEpochs <= high]
    if options.recipe not in MEANT_FOR or options.recipe in fitting:
        return None
    low, high = MEANT_FOR[options.recipe]
    advice = f"--recipe {fitting[0]} is meant for that" if fitting else "TRAINING.md says what was tried"
    return f"--recipe {options.recipe} is meant for {low} to {high} epochs, this run has {options.nEpochs}; {advice}"
