"""Sets of options that go together, by name; an option that is given explicitly wins. TRAINING.md has the measurements
behind `fast`, and behind the range of epochs that each recipe is meant for."""

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
