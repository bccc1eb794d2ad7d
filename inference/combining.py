"""Answers made from several: those of a picture and its mirror image, those of all exits."""

import math

import torch
from torch import Tensor, nn


class Mirrored(nn.Module):
    """The mean of the logits that a model of N×H×W×3 uint8 pictures gives for each picture and its mirror image."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        """N×H×W×3 uint8 -> the logits of each exit, each N×classes, float32."""
        both = zip(self.model(images), self.model(images.flip(2)), strict=True)
        return [(plain.float() + mirrored.float()) / 2 for plain, mirrored in both]


class Ensemble(nn.Module):
    """All exits of a model as one that answers with the mean of their probabilities."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        """N×H×W×3 uint8 -> one N×classes tensor of logits, whose softmax is the mean of those of the exits."""
        logs = torch.stack([logits.float().log_softmax(1) for logits in self.model(images)])
        return [logs.logsumexp(0) - math.log(len(logs))]
