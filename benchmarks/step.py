"""The training step of AuxResNet-56-5, batch 128, float32, on the CPU.

python -m benchmarks.step

Compares this program's step, plain and with `--compile true`, with that of a plain training script, with the step of
a network with one exit, and with the time that its convolutions alone would take.

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
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import devices
import opts
from benchmarks.timing import Case, interleaved, machine, timed
from datasets.loaders import training_batches
from datasets.pictures import Pictures
from datasets.transforms import Augmentation, Normalise
from evaluation import Sums
from models import names
from models.auxresnet import AuxResNet
from trainer import Trainer

BATCH = 128
MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
NETWORK = "AuxResNet-56-5"


def noise(count: int = 5000) -> Pictures:
    """Pictures of CIFAR's size; what is on them does not matter for speed."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return Pictures(images, torch.randint(0, 10, (count,), generator=generator), tuple("0123456789"))


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
    network = AuxResNet(names.parse(name), 10)
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


def ours(name: str, *options: str, batch: int = BATCH) -> Case:
    """This program's step, by its own trainer and loader."""
    trainer, batches = training(name, *options, batch=batch)
    return partial(timed, lambda: one_step(trainer, batches))


def training(name: str, *options: str, batch: int = BATCH) -> tuple[Trainer, Iterator[tuple[Tensor, Tensor]]]:
    """A trainer of the named network under the command line `options`, and its endless batches."""
    settings = opts.parse(["--nGPU", "0", "--batchsize", str(batch), *options])
    configuration = names.parse(name)
    network = AuxResNet(configuration, 10)
    network.share_grad_input = settings.shareGradInput
    weights = (1.0,) * len(configuration.exits)
    batches = training_batches(
        noise(40 * batch), batch_size=batch, epochs=10**6, done=0, seed=0, workers=settings.nThreads,
        augmentation=Augmentation(pad=4, flip=True), pin=False,
    )  # fmt: skip
    return Trainer(network, Normalise(MEAN, STD), weights, devices.choose(0), settings), batches


def one_step(trainer: Trainer, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Fetch a batch and train on it."""
    sums = Sums(len(trainer.weights), trainer.device)
    trainer.train_epoch(itertools.islice(batches, 1), lambda step: 0.0, sums, lambda count, result: None)


def convolutions(name: str) -> Case:
    """All convolutions of a step alone, forward and backward: each distinct one is timed in the faster memory format,
    and counted as often as it occurs."""
    network = AuxResNet(names.parse(name), 10)
    shapes: dict[tuple, int] = {}

    def note(module: nn.Conv2d, inputs: tuple[Tensor], _: Tensor) -> None:
        key = (inputs[0].shape, module.weight.shape, module.stride, module.padding, module is not network.stem)
        shapes[key] = shapes.get(key, 0) + 1

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        network(torch.zeros(BATCH, 3, 32, 32))
    runs = [(count, [convolution(*key, f) for f in (torch.channels_last, torch.contiguous_format)])
            for key, count in shapes.items()]  # fmt: skip
    return lambda: sum(count * min(timed(run) for run in formats for _ in range(3)) for count, formats in runs)


def convolution(
    images: torch.Size, weight: torch.Size, stride: tuple, padding: tuple, input_gradient: bool, memory: object
) -> Callable[[], None]:
    """One convolution and its backward passes."""
    x = torch.randn(images).to(memory_format=memory).requires_grad_(input_gradient)
    w = torch.randn(weight).to(memory_format=memory).requires_grad_()
    wanted = [x, w] if input_gradient else [w]
    with torch.no_grad():
        gradient = torch.randn_like(F.conv2d(x, w, None, stride, padding))
    return lambda: torch.autograd.grad(F.conv2d(x, w, None, stride, padding), wanted, gradient)


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
        "convolutions alone": partial(convolutions, NETWORK),
    }
    seconds = interleaved(cases, rounds)
    print(f"{NETWORK}, batch {BATCH}, float32; {machine()}; median of {rounds}\n")
    print("case                      ms a step  images/s")
    for name, value in seconds.items():
        print(f"{name:24}  {1000 * value:9.0f}  {BATCH / value:8.0f}")
    eager, compiled = seconds["this program"], seconds["this program, --compile"]
    print(f"\nspeed over the plain script: {seconds['plain script'] / eager:.2f}; compiled: ", end="")
    print(f"{seconds['plain script'] / compiled:.2f}")
    print(f"convolutions' share of the step: {seconds['convolutions alone'] / eager:.2f}; compiled: ", end="")
    print(f"{seconds['convolutions alone'] / compiled:.2f}")
    print(f"five exits over one: {eager / seconds['ResNet-56']:.3f}; compiled: ", end="")
    print(f"{compiled / seconds['ResNet-56, --compile']:.3f}")


if __name__ == "__main__":
    main()
