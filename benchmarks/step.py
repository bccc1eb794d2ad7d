"""The training step on the CPU.

python -m benchmarks.step

Compares this program's step of AuxResNet-56-5, batch 128, float32, plain and compiled, with that of a plain
training script and with the step of a network with one exit. Then says, for AuxResNet-56-5 and AuxResNet-26-2/10 with
`--recipe fast`, compiled, in float32 and bfloat16, what part of a step the convolutions and the optimizer take.

Where the time of a step goes, by PyTorch's profiler on two cores of a Xeon (PyTorch 2.14.1), in percent:

    eager                               with --compile true
    convolutions, backward        41    convolutions, backward                       45
    convolutions, forward         21    convolutions, forward                        27
    batch norms, backward         10    batch norms, ReLUs and additions, fused,
    batch norms, forward          10      forward and backward                       27
    ReLUs, backward                7    optimizer, losses, everything else            1
    additions                      5
    ReLUs, forward                 2
    optimizer, losses, the rest    4
"""

import argparse
import itertools
from functools import partial

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks import shares
from benchmarks.cases import BATCH, MEAN, NETWORK, STD, noise, ours
from benchmarks.timing import Case, interleaved, machine, timed
from datasets.pictures import Pictures
from models import names, networks

SHARES = (("AuxResNet-56-5", 128), ("AuxResNet-26-2/10", 128), ("AuxResNet-26-2/10", 256))
SHARE_ROUNDS = 3


class OneByOne(Dataset[tuple[Tensor, int]]):
    """The pictures as the usual script serves them: one PIL image at a time, through torchvision's transforms."""

    def __init__(self, pictures: Pictures, augment: bool = True) -> None:
        self.arrays, self.targets = pictures.images.numpy(), pictures.targets.tolist()
        scaled = [[v / 255 for v in values] for values in (MEAN, STD)]
        random = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()] if augment else []
        self.transform = transforms.Compose([*random, transforms.ToTensor(), transforms.Normalize(*scaled)])

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[index])), self.targets[index]


def reference(name: str) -> Case:
    """The plain training script: eager, NCHW, a loader that works picture by picture, one `.item()` a step."""
    network = networks.build(names.parse(name), 10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    loader = DataLoader(OneByOne(noise()), BATCH, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    running = 0.0

    def step() -> None:
        nonlocal running
        images, targets = next(batches)
        loss = sum(F.cross_entropy(logits, targets) for logits in network(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running += loss.item()

    return partial(timed, step)


def main() -> None:
    """Run all cases in turn and print their rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    cases = {
        "plain script": partial(reference, NETWORK),
        "this program": partial(ours, NETWORK),
        "this program, --compile": partial(ours, NETWORK, "--compile", "true"),
        "ResNet-56": partial(ours, "ResNet-56"),
        "ResNet-56, --compile": partial(ours, "ResNet-56", "--compile", "true"),
    }
    seconds = interleaved(cases, rounds)
    print(f"{NETWORK}, batch {BATCH}, float32; {machine()}; median of {rounds}\n")
    print("case                      ms a step  images/s")
    for name, value in seconds.items():
        print(f"{name:24}  {1000 * value:9.0f}  {BATCH / value:8.0f}")
    eager, compiled = seconds["this program"], seconds["this program, --compile"]
    print(f"\nspeed over the plain script: {seconds['plain script'] / eager:.2f}; compiled: ", end="")
    print(f"{seconds['plain script'] / compiled:.2f}")
    print(f"five exits over one: {eager / seconds['ResNet-56']:.3f}; compiled: ", end="")
    print(f"{compiled / seconds['ResNet-56, --compile']:.3f}")

    print(f"\n--recipe fast, compiled; median of {SHARE_ROUNDS}\n")
    print(shares.markdown(shares.TITLES, ["---"] * len(shares.TITLES)))
    for name, batch in SHARES:
        measured = shares.measure(name, batch, ("--recipe", "fast", "--compile", "true"), SHARE_ROUNDS)
        print(shares.markdown(*(shares.row(name, batch, *part) for part in measured.items())), flush=True)


if __name__ == "__main__":
    main()
