"""The size of a network's pictures, and how pictures of any size are brought to it. Plain Python, no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SIDE = 32  # pixels; of CIFAR, of SVHN, and of whatever is not told otherwise
SIDES = range(16, 225, 4)  # what a network may take: its three stages halve the side twice
LEGAL_SIDES = f"a multiple of {SIDES.step} from {SIDES[0]} to {SIDES[-1]}"
FITS = ("crop", "squeeze")
PADDINGS = ("black", "mean", "reflect")


@dataclass(frozen=True)
class Sizing:
    """How pictures of any size become `side`×`side` pixels.

    `crop`: their shorter side is scaled to that, and of the longer one the middle is taken. `squeeze`: both sides are
    scaled, whatever becomes of the aspect ratio; that is what runs did before there was a choice.
    """

    side: int = SIDE
    fit: str = "crop"

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> "Sizing":
        """What the header of an exit says."""
        return cls(header["input"][1], header["fit"])

    def fields(self) -> dict[str, Any]:
        """What the header of an exit says of it."""
        return {"input": [3, self.side, self.side], "fit": self.fit}

    def scaled(self, pixels: int) -> int:
        """`pixels`, which are meant for a picture of the usual size, in proportion to this size."""
        return pixels * self.side // SIDE


@dataclass(frozen=True)
class Margin:
    """What training pictures have around them, for random crops to go into: `width` pixels on each side.

    There they show more of the picture as far as its longer side reaches; beyond that there is the `padding`: black,
    `mean`, the picture's own mean colour, or `reflect`, the picture mirrored.
    """

    width: int = 0
    padding: str = "black"


USUAL, NO_MARGIN = Sizing(), Margin()
