"""Mixup: a network learns from mixtures of two pictures to answer with the mixture of their classes (Zhang et al.,
"mixup: Beyond Empirical Risk Minimization", arXiv 1710.09412). Of several processes each mixes its own pictures."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SHARES = 2**32 - 3  # a stream of random numbers, as those in datasets/loaders.py


def share(alpha: float, seed: int, epoch: int, index: int) -> float:
    """What each picture of a step keeps of itself, 0.5 … 1: drawn from Beta(α, α), the smaller part given away. It is
    the same in every process, and whenever the run comes to this step."""
    kept = np.random.default_rng([seed, SHARES, epoch, index]).beta(alpha, alpha)
    return max(kept, 1 - kept)


def mixed(images: Tensor, targets: Tensor, classes: int, share: float) -> tuple[Tensor, Tensor]:
    """Each picture mixed with the one as far from the end of the batch as it is from the beginning: N×H×W×C uint8
    images in, float32 ones out; N targets in, N×classes probabilities out."""
    own = images.float(), F.one_hot(targets, classes).float()
    return tuple(torch.lerp(tensor.flip(0), tensor, share) for tensor in own)


def mixed_batches(images: Tensor, count: int, alpha: float, seed: int) -> Iterator[Tensor]:
    """N×H×W×C uint8 pictures mixed as in training, each by its own share with another by chance, as float32, in so many
    batches; one of them is in memory at a time."""
    draw = np.random.default_rng([seed, SHARES])
    shares = torch.from_numpy(draw.beta(alpha, alpha, (len(images), 1, 1, 1))).float()
    others = images[torch.from_numpy(draw.permutation(len(images)))]
    parts = zip(*(tensor.tensor_split(count) for tensor in (others, images, shares)), strict=True)
    return (torch.lerp(other.float(), own.float(), share) for other, own, share in parts)
