"""Sets of options that go together, by name; an option that is given explicitly wins. TRAINING.md has the measurements
behind `fast`."""

from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},  # the authors' settings are the defaults
    "fast": {
        "schedule": "onecycle",
        "LR": 0.2,
        "scaleLR": True,
        "optimizer": "muon",
        "weightDecay": 5e-4,
        "decayNorms": False,
        "labelSmoothing": 0.1,
        "alternateFlip": True,
    },
}
