"""Loss and errors of a network over batches of pictures, and the batch norm statistics that it is evaluated with."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from datasets.pictures import Pictures
from datasets.sizing import SIDE
from models.folding import folded
from models.losses import multiway_loss
from models.metrics import Result, Sums
from models.multiexit import MultiExit
from system import world
from system.arithmetic import autocast
from system.devices import place

BATCH = 250


def batch_size(side: int, usual: int = BATCH) -> int:
    """How many pictures of side×side pixels are computed at once: `usual` of the usual size, of larger ones as many as
    have as many pixels, because their activations take the memory."""
    return max(1, min(usual, usual * SIDE**2 // side**2))


def batches(pictures: Pictures) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures and targets as they are evaluated."""
    return pictures.batches(batch_size(pictures.images.shape[1]))


def ready(network: MultiExit, normalise: nn.Module, devices: Sequence[torch.device]) -> nn.Module:
    """A copy of the network that evaluates N×H×W×3 uint8 pictures as fast as can be, on its devices: on a single one a
    `Sequential` of `normalise` and the copy."""
    return place(nn.Sequential(normalise, folded(network)), devices).eval()


def measure_statistics(
    network: MultiExit, normalise: nn.Module, batches: Iterable[Tensor], device: torch.device
) -> MultiExit:
    """Give a network, in place, the batch norm statistics that its weights have on these batches of N×H×W×3 pictures,
    from 0 to 255, and on those of all processes, in float32. All batches count alike, so they should be of one size.

    Needed where the running ones, gathered in training, are those of other weights or of smaller pictures. The pictures
    must be varied as in training: the black margins of crops alone change the statistics so much that a network
    evaluated with those of plain pictures loses several points.
    """
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda):  # dropout draws; training's own draws must not depend on it
        moved = (images.to(device) for images in batches)
        torch.optim.swa_utils.update_bn(moved, nn.Sequential(normalise, network))
    statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    counts = [buffer for buffer in network.buffers() if not buffer.is_floating_point()]
    own = int(counts[0])  # of batches: each batch norm counts those that it has seen
    everywhere = int(world.total(counts[0].clone()))
    world.combine(counts, statistics, own / everywhere)
    return network


@torch.inference_mode()
def logits_of(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> Iterator[tuple[list[Tensor], Tensor]]:
    """The logits of each exit (N×classes, float32) and the N targets of every batch, on the device; `model` computes
    the logits in `dtype` by autocast (None: in float32)."""
    for images, targets in batches:
        images, targets = images.to(device), targets.to(device)
        with autocast(device, dtype):
            logits = model(images)
        yield [z.float() for z in logits], targets


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    weights: Sequence[float],
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> Result:
    """Loss and errors over batches of N pictures and N targets, and over those of all processes; `weights` are those of
    the exits' losses, the rest is as for `logits_of`."""
    sums = Sums(len(weights), device)
    for logits, targets in logits_of(model, batches, device, dtype):
        sums.add(multiway_loss(logits, targets, weights)[0], logits, targets)
    return sums.total().result()
