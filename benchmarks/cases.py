"""What the benchmarks time: steps of this program, parts of them, and pictures to take them on."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import opts
from benchmarks.timing import Case, timed
from datasets.loaders import Batch, training_batches
from datasets.pictures import Pictures
from datasets.splits import TrainingData
from datasets.transforms import Normalise
from models import names, networks
from models.metrics import Sums
from system import devices
from training import setup
from training.trainer import Trainer

BATCH = 128
MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
NETWORK = "AuxResNet-56-5"


def noise(count: int = 5000) -> Pictures:
    """Pictures of CIFAR's size; what is on them does not matter for speed."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return Pictures(images, torch.randint(0, 10, (count,), generator=generator), tuple("0123456789"))


def ours(name: str, *options: str, batch: int = BATCH) -> Case:
    """This program's step, by its own trainer and loader."""
    trainer, batches = training(name, *options, batch=batch)
    return partial(timed, lambda: one_step(trainer, batches))


def training(name: str, *options: str, batch: int = BATCH) -> tuple[Trainer, Iterator[Batch]]:
    """A trainer of the named network under the command line `options`, and its endless batches."""
    settings = opts.parse(["--nGPU", "0", "--batchsize", str(batch), "--nEpochs", "100000", *options])
    cpu = devices.choose(0)
    settings = setup.choose(settings, 0, cpu)
    configuration, pictures = names.parse(name), noise(40 * batch)
    trainer = setup.trainer(settings, configuration, 10, Normalise(MEAN, STD), cpu, batch)
    data = TrainingData(pictures, pictures, validates=False, test_split=None, mean=MEAN, std=STD, pad=4, flip=True)
    batches = training_batches(
        pictures, setup.plan(settings, len(pictures)).after(0), seed=0, workers=settings.nThreads,
        augmentation=setup.augmentation(settings, data), pin=False,
    )  # fmt: skip
    return trainer, batches


def one_step(trainer: Trainer, batches: Iterator[Batch]) -> None:
    """Fetch a batch and train on it."""
    sums = Sums(len(trainer.network.exits), trainer.device)
    for _ in trainer.steps(islice(batches, 1), sums):
        trainer.watch.check()
    sums.result()


def convolutions(name: str, batch: int = BATCH, dtype: torch.dtype = torch.float32) -> Case:
    """All convolutions of a step alone, forward and backward: each distinct one is timed in the faster memory format,
    and counted as often as it occurs."""
    network = networks.build(names.parse(name), 10)
    shapes: dict[tuple, int] = {}

    def note(module: nn.Conv2d, inputs: tuple[Tensor], _: Tensor) -> None:
        key = (inputs[0].shape, module.weight.shape, module.stride, module.padding, module is not network.stem)
        shapes[key] = shapes.get(key, 0) + 1

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    formats = (torch.channels_last, torch.contiguous_format)
    return lambda: sum(
        count * min(timed(run) for memory in formats for run in [convolution(*key, batch, dtype, memory)] * 3)
        for key, count in shapes.items()
    )


def convolution(
    one: torch.Size,
    weight: torch.Size,
    stride: tuple,
    padding: tuple,
    input_gradient: bool,
    batch: int,
    dtype: torch.dtype,
    memory: torch.memory_format,
) -> Callable[[], None]:
    """One convolution of a batch of inputs like `one`, and its backward passes."""
    x = torch.randn(batch, *one[1:], dtype=dtype).to(memory_format=memory).requires_grad_(input_gradient)
    w = torch.randn(weight, dtype=dtype).to(memory_format=memory).requires_grad_()
    wanted = [x, w] if input_gradient else [w]
    with torch.no_grad():
        gradient = torch.randn_like(F.conv2d(x, w, None, stride, padding))
    return lambda: torch.autograd.grad(F.conv2d(x, w, None, stride, padding), wanted, gradient)


def small(batch: Batch) -> Batch:
    """Two pictures of a batch."""
    return Batch(batch.step, batch.images[:2], batch.targets[:2])


def optimizer(name: str, *options: str, batch: int = BATCH) -> Case:
    """The optimizer's part of a step alone, with the gradients of two pictures."""
    trainer, batches = training(name, *options, batch=batch)
    one_step(trainer, iter([small(next(batches))]))
    return partial(timed, lambda: [part.step() for part in trainer.optimizers])
