"""Layers that take a single picture on a CPU as they take several: to the same bits, and as quickly.

PyTorch has other kernels for a batch of one. They round in another way, so that a picture's answer would depend on the
pictures beside it, and the convolution's (im2col and a matrix product) takes one and a half times as long.
"""

import torch
from torch import Tensor, nn


class Convolution(nn.Conv2d):
    """`nn.Conv2d`, which leaves a single picture to oneDNN, too."""

    def forward(self, x: Tensor) -> Tensor:
        """N×in_channels×H×W -> N×out_channels×H/stride×W/stride."""
        if not _alone(x):
            return super().forward(x)
        return torch.mkldnn_convolution(
            x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )


class Linear(nn.Linear):
    """`nn.Linear`, which multiplies a matrix with the features of a single picture, not a vector."""

    def forward(self, x: Tensor) -> Tensor:
        """N×in_features -> N×out_features."""
        return super().forward(x.expand(2, -1))[:1] if _alone(x) else super().forward(x)


def _alone(x: Tensor) -> bool:
    """Whether this is one picture on a CPU that has oneDNN, in float32, of which no gradient is asked."""
    if torch.compiler.is_compiling() or len(x) != 1 or x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    return torch.backends.mkldnn.is_available() and not (torch.is_autocast_enabled("cpu") or torch.is_grad_enabled())
