"""The size of a network's pictures, and how pictures of any size are brought to it. Plain Python, no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SIDE = 32  # pixels; of CIFAR, of SVHN, and of whatever is not told otherwise
SIDES = range(16, 225, 4)  # what a network may take: its three stages halve the side twice
FITS = ("squeeze",)


@dataclass(frozen=True)
class Sizing:
    """Pictures become `side`×`side` pixels, `squeeze`d: scaled to that whatever their aspect ratio."""

    side: int = SIDE
    fit: str = "squeeze"

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> "Sizing":
        """What the header of an exit says."""
        return cls(header["input"][1], header["fit"])

    def fields(self) -> dict[str, Any]:
        """What the header of an exit says of it."""
        return {"input": [3, self.side, self.side], "fit": self.fit}


USUAL = Sizing()
