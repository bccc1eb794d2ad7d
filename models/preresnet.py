"""The pre-activation residual trunk of ResNet and AuxResNet: stem and blocks.

Reference: He et al., "Identity Mappings in Deep Residual Networks", arXiv 1603.05027; widths and dropout as in
Zagoruyko and Komodakis, "Wide Residual Networks", arXiv 1605.07146. A plain network with type-A shortcuts and 10
classes has these many parameters, head included:

    depth        20        32        44        56         110        1001 (bottleneck)
    parameters   269,722   464,154   658,586   853,018    1,727,962  10,285,722
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models import exits
from models.layers import Convolution
from models.multiexit import Trunk
from models.names import Configuration
from models.norm import BatchNorm

STEM_CHANNELS = 16
STAGE_CHANNELS = (16, 32, 64)
BOTTLENECK = 4  # a bottleneck block puts out this many times its inner channels


class PadShortcut(nn.Module):
    """Type-A shortcut: every `stride`-th pixel, and `extra` channels of zeros. No parameters."""

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.stride, self.extra = stride, extra

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W -> N×(C + extra)×H/stride×W/stride."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


class Block(nn.Module):
    """One residual block: BN, ReLU and convolution, two times (basic) or three times (bottleneck).

    `first` marks the first block of a stage: it takes the stride, changes the channels, and pre-activates its
    shortcut as well as its branch. Dropout, if any, stands before the last convolution.
    """

    def __init__(
        self, inputs: int, width: int, layers: int, stride: int, first: bool, dropout: float, shortcut: str
    ) -> None:
        super().__init__()
        if layers == 2:
            outputs = width
            convolutions = [_convolution(inputs, width, 3, stride), _convolution(width, width, 3)]
        else:
            outputs = width * BOTTLENECK
            convolutions = [
                _convolution(inputs, width, 1),
                _convolution(width, width, 3, stride),
                _convolution(width, outputs, 1),
            ]
        self.norms = nn.ModuleList(BatchNorm(convolution.in_channels) for convolution in convolutions)
        self.convolutions = nn.ModuleList(convolutions)
        self.first = first
        self.dropout = dropout
        if inputs == outputs and stride == 1:
            self.shortcut = nn.Identity()
        elif shortcut == "A":
            self.shortcut = PadShortcut(stride, outputs - inputs)
        else:
            self.shortcut = _convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×H×W -> N×outputs×H/stride×W/stride."""
        norm, *inner_norms = self.norms
        branch = F.relu(norm(x), inplace=True)
        shortcut = self.shortcut(branch if self.first else x)
        *inner, last = self.convolutions
        for convolution, norm in zip(inner, inner_norms, strict=True):
            branch = F.relu(norm(convolution(branch)), inplace=True)
        if self.dropout:
            branch = F.dropout(branch, self.dropout, self.training)
        return last(branch).add_(shortcut)

    def fold(self) -> None:
        """Take every batch norm that follows a convolution, which are all but the first, into that convolution."""
        for index, (convolution, norm) in enumerate(zip(self.convolutions, self.norms[1:], strict=False)):
            self.convolutions[index] = nn.utils.fuse_conv_bn_eval(convolution, norm)
            self.norms[index + 1] = nn.Identity()


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> Convolution:
    return Convolution(inputs, outputs, size, stride, padding=size // 2, bias=False)


def trunk(configuration: Configuration) -> Trunk:
    """Stem (layer 1: N×3×H×W -> N×16×H×W) and blocks of a configuration, with the positions that exits can have."""
    layers = exits.layers_per_block(configuration.depth)
    per_stage = (configuration.depth - 2) // (layers * len(STAGE_CHANNELS))
    blocks, channels, inputs = [], [], STEM_CHANNELS
    for stage, base in enumerate(STAGE_CHANNELS):
        width = base * configuration.widen
        for index in range(per_stage):
            first = index == 0
            stride = 2 if first and stage > 0 else 1
            blocks.append(Block(inputs, width, layers, stride, first, configuration.dropout, configuration.shortcut))
            inputs = blocks[-1].convolutions[-1].out_channels
            channels.append(inputs)
    stem = _convolution(3, STEM_CHANNELS, 3)  # after the blocks: the order of random numbers decides initial weights
    return Trunk(stem, blocks, channels, exits.positions(configuration.depth))
