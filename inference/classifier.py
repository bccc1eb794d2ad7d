"""One exit as a classifier: pictures in, probabilities of classes out, with everything that its user has to know."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from datasets.decoding import as_pixels, bounded, damage_told, decode_one
from datasets.sizing import Sizing
from formats import exit_file
from inference.evaluation import batch_size
from models import metrics
from system.errors import UserError

POLICY = "policy"  # in the card of what chooses the exit picture by picture

Picture = Tensor | np.ndarray | Image.Image | str | Path
Answers = Callable[[Tensor], tuple[Tensor, Tensor]]  # N×H×W×3 uint8 -> N×classes probabilities, positions of N exits


class Described:
    """What is known of something that classifies: `card` is the header of an exit file, without the options of the run;
    with a policy it has that, too."""

    card: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the probabilities."""
        return tuple(self.card["classes"])

    @property
    def sizing(self) -> Sizing:
        """How its pictures are brought to size."""
        return Sizing.of(self.card)


@dataclass(frozen=True)
class Model(Described):
    """Something that classifies, whatever it was read from."""

    answers: Answers  # N×side×side×3 uint8 -> N×classes float32 and N int64, on the CPU
    card: dict[str, Any]

    @property
    def leaves_early(self) -> bool:
        """Whether pictures leave at different exits."""
        return POLICY in self.card


class Classifier(Described, nn.Module):
    """N×side×side×3 uint8 pictures -> N×classes probabilities, float32.

    `network` turns pictures that `normalise` has normalised into the logits of its exits, of which the last is taken.
    """

    def __init__(self, network: nn.Module, normalise: nn.Module, card: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.normalise, self.card = network, normalise, card

    def forward(self, images: Tensor) -> Tensor:
        """N×side×side×3 uint8 -> N×classes."""
        return self.network(self.normalise(images))[-1].float().softmax(1)

    def preprocess(self, picture: Picture) -> Tensor:
        """A picture of any size as 1×side×side×3 uint8: a PIL image, the path of a file, or H×W×3 or H×W values of
        uint8.

        Raises UserError, which is a ValueError, for anything else.
        """
        with bounded():
            if isinstance(picture, str | Path):
                return torch.from_numpy(decode_one(str(picture), self.sizing))[None]
            with damage_told("what was given"):
                return torch.from_numpy(as_pixels(_image(picture), self.sizing))[None]

    @torch.inference_mode()
    def predict(self, images: Tensor | Picture | Sequence[Picture]) -> list[tuple[str, float]]:
        """The likeliest class of each picture and its probability, whatever mode the network is in.

        `images` is what `preprocess` gives (also several of them, concatenated), what it takes, or a list of what it
        takes. Of any number of pictures one batch at a time is decoded and computed. Raises UserError as `preprocess`
        does.
        """
        device, modes = next(self.parameters()).device, {module: module.training for module in self.modules()}
        try:
            self.eval()
            answers = (likeliest(self(batch.to(device)), self.classes, 1) for batch in self._batches(images))
            return [best for rows in answers for (best,) in rows]
        finally:
            for module, mode in modes.items():
                module.training = mode

    def _batches(self, images: Tensor | Picture | Sequence[Picture]) -> Iterator[Tensor]:
        size = batch_size(self.sizing.side)
        if isinstance(images, Tensor) and images.ndim == 4:
            side = self.sizing.side
            if images.dtype != torch.uint8 or images.shape[1:] != (side, side, 3):
                shape = "×".join(map(str, images.shape))
                raise UserError(f"several pictures are N×{side}×{side}×3 of uint8, not {shape} of {images.dtype}")
            yield from images.split(size)
            return
        pictures = images if isinstance(images, list | tuple) else [images]
        for start in range(0, len(pictures), size):
            yield torch.cat([self.preprocess(picture) for picture in pictures[start : start + size]])


def _image(picture: Tensor | np.ndarray | Image.Image) -> Image.Image:
    """Raises ValueError for values that are none of a picture."""
    if isinstance(picture, Image.Image):
        return picture
    values = np.asarray(picture)
    if values.dtype != np.uint8 or not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] == 3)):
        raise ValueError(f"a picture is H×W×3 or H×W values of uint8, not {values.shape} of {values.dtype}")
    return Image.fromarray(values)


def card_of(header: dict[str, Any]) -> dict[str, Any]:
    """What a user of an exit has to know, from the header of its file."""
    fields = {name: header[name] for name in exit_file.HEADER_FIELDS}
    return {**fields, "program": exit_file.PROGRAM}


def likeliest(probabilities: Tensor, classes: Sequence[str], count: int) -> list[list[tuple[str, float]]]:
    """For each row of N×classes probabilities the `count` likeliest classes, likeliest first, each with its own.
    Raises UserError where the network gives none."""
    metrics.check_finite(probabilities, "the network")
    values, indices = probabilities.topk(min(count, len(classes)))
    rows = zip(values.tolist(), indices.tolist(), strict=True)
    return [[(classes[index], value) for value, index in zip(*row, strict=True)] for row in rows]
