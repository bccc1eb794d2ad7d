"""What a step changes before it moves the weights, undone where the step is broken off or fails."""

import torch

from models.multiexit import MultiExit
from system import devices


class Undo:
    """The buffers of a network, which are those of its batch norms, and the states of what draws dropout.

    There are hundreds of buffers, so they are copied by their types, all of one at once; a GPU would spend longer on
    them one by one than on what is in them. To be made when the network is on its device, where it gets other buffers.
    """

    def __init__(self, network: MultiExit, device: torch.device) -> None:
        self.devices = [device]
        buffers = list(network.buffers())
        self.held = [(module, dict(module._buffers)) for module in network.modules()]
        types = dict.fromkeys(buffer.dtype for buffer in buffers)
        self.buffers = [[buffer for buffer in buffers if buffer.dtype is dtype] for dtype in types]
        self.copies = [[torch.empty_like(buffer) for buffer in alike] for alike in self.buffers]

    def remember(self) -> None:
        """Before a step: take in how things are."""
        for copies, buffers in zip(self.copies, self.buffers, strict=True):
            torch._foreach_copy_(copies, buffers)
        self.random, self.random_cuda = torch.get_rng_state(), devices.generators(self.devices)

    def restore(self) -> None:
        """After a step that came to no end: bring things back to how they were."""
        for module, held in self.held:  # blocks that were being recomputed have others
            module._buffers.update(held)
        for copies, buffers in zip(self.copies, self.buffers, strict=True):
            torch._foreach_copy_(buffers, copies)
        torch.set_rng_state(self.random)
        devices.set_generators(self.devices, self.random_cuda)
