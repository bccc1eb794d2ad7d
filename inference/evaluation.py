"""Loss and errors of a network, summed on the device over batches of pictures; the time that one picture takes."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from datasets.pictures import Pictures
from models.auxresnet import AuxResNet
from models.folding import folded
from models.losses import multiway_loss
from system import devices
from system.arithmetic import autocast

BATCH = 250
LATENCY_PASSES = 25


@dataclass(frozen=True)
class Result:
    """Means over the pictures of an epoch so far: the weighted loss, and the error of each exit in percent."""

    loss: float
    errors: tuple[float, ...]


def ready(network: AuxResNet, normalise: nn.Module, where: list[torch.device]) -> nn.Module:
    """A copy of the network that evaluates N×32×32×3 uint8 pictures as fast as can be, on its devices."""
    return devices.place(nn.Sequential(normalise, folded(network)), where).eval()


def measure_statistics(
    network: AuxResNet,
    normalise: nn.Module,
    sample: Tensor,
    device: torch.device,
    show: Callable[[int], None] = lambda count: None,
) -> AuxResNet:
    """The network with the batch norm statistics that its weights have on these N×32×32×3 uint8 pictures, in float32;
    `show` is told the size of each batch.

    Needed where the running ones, gathered in training, are those of other weights or of smaller pictures. The pictures
    must be varied as in training: the black margins of crops alone change the statistics so much that a network judged
    with those of plain pictures loses several points.
    """

    def batches() -> Iterator[Tensor]:
        for images in sample.chunk(-(-len(sample) // BATCH)):  # of one size, as all count alike
            yield images.to(device)
            show(len(images))

    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda):  # dropout draws; training's own draws must not depend on it
        torch.optim.swa_utils.update_bn(batches(), nn.Sequential(normalise, network))
    return network


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    pictures: Pictures,
    weights: Sequence[float],
    device: torch.device,
    show: Callable[[int], None] = lambda count: None,
    dtype: torch.dtype | None = None,
) -> Result:
    """Loss and errors over all pictures; `model` returns a list of logits, computed in `dtype` by autocast (None: in
    float32), `show` is told the size of each batch."""
    sums = Sums(len(weights), device)
    for images, targets in zip(pictures.images.split(BATCH), pictures.targets.split(BATCH), strict=True):
        images, targets = images.to(device), targets.to(device)
        with autocast(device, dtype):
            logits = [z.float() for z in model(images)]
        sums.add(multiway_loss(logits, targets, weights)[0], logits, targets)
        show(len(targets))
    return sums.result()


@torch.inference_mode()
def latency(model: nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> float:
    """Milliseconds from the bytes of one picture to the host's logits, the median of `LATENCY_PASSES`."""
    picture = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    seconds = []
    for _ in range(2 * LATENCY_PASSES):  # the first half warms up
        start = time.perf_counter()
        with autocast(device, dtype):
            model(picture.to(device))[-1].cpu()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[LATENCY_PASSES:])


class Sums:
    """Running sums on the device: loss × pictures, and the wrong answers of each exit."""

    def __init__(self, exits: int, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device)
        self.wrong = torch.zeros(exits, dtype=torch.int64, device=device)
        self.pictures = 0

    def add(self, loss: Tensor, logits: Sequence[Tensor], targets: Tensor) -> None:
        """Count a batch."""
        self.loss += loss.detach() * len(targets)
        self.wrong += torch.stack([z.argmax(1) for z in logits]).ne(targets).sum(1)
        self.pictures += len(targets)

    def result(self) -> Result:
        """The means so far; waits for the device."""
        wrong = self.wrong.tolist()
        return Result(self.loss.item() / self.pictures, tuple(100 * count / self.pictures for count in wrong))

    def state(self) -> dict[str, Any]:
        """The sums, for a training state."""
        return {"loss": self.loss, "wrong": self.wrong, "pictures": self.pictures}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.loss.copy_(state["loss"])
        self.wrong.copy_(state["wrong"])
        self.pictures = state["pictures"]
