"""Batch norms folded into the convolutions before them, for evaluation."""

import copy

import torch
from torch import nn

from models.auxresnet import AuxResNet


def folded(network: AuxResNet) -> AuxResNet:
    """A copy for evaluation in which every batch norm that follows a convolution is part of that convolution.

    In a pre-activation block those are all but the first; the logits stay the same to rounding.
    """
    network = copy.deepcopy(network).eval()
    for segment in network.segments:
        for block in segment:
            for index, (convolution, norm) in enumerate(zip(block.convolutions, block.norms[1:], strict=False)):
                block.convolutions[index] = torch.nn.utils.fuse_conv_bn_eval(convolution, norm)
                block.norms[index + 1] = nn.Identity()
    return network
