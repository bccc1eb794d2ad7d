"""What a model expects of many GPUs, each with a batch of its own: how near they come to as many times one of them.

python -m benchmarks.clusters

Counted, on the CPU of the machine at hand: the arithmetic, the operations and the messages of a training step. Assumed:
what a GPU and its networks do in a second. Computed from the two: the efficiency, the time of a step on one GPU over
that of a step on all of them. Nothing is measured on a GPU. Writes `benchmarks/results/clusters.md`, with all
assumptions, and `clusters.png`.

A step takes what its arithmetic or its launches take, whichever is longer. Two thirds of it are the backward pass,
behind which gradients travel, but for the last bucket of DistributedDataParallel, which is not full before the end.
Muon's steps and the statistics of batch norms travel after it. Messages are summed within a host, then over the hosts,
each GPU for its part, then handed out within the host.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import small, training
from training.muon import Muon

RESULTS = Path(__file__).parent / "results"
NETWORKS = ("AuxResNet-56-5", "AuxResNet-26-2/10")
BATCHES = (32, 128)  # pictures for each GPU
GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
OPTIONS = ("--recipe", "fast", "--precision", "bf16", "--compile", "false", "--nThreads", "0")
BUCKET = 25 * 2**20  # bytes: DistributedDataParallel's


@dataclass(frozen=True)
class Machines:
    """Hosts of eight GPUs as in NVIDIA's DGX H100, by its data sheet, of whose arithmetic 40 % is used, which is more
    than narrow networks reach: a slower GPU, or one that is used less well, makes the efficiency higher. Latencies are
    guesses at what is usual."""

    flops: float = 0.4 * 989e12  # a second, bf16
    launch: float = 5e-6  # seconds an operation
    host: int = 8  # GPUs
    within: float = 450e9  # bytes a second, each way, from GPU to GPU in a host
    between: float = 50e9  # bytes a second, each way, from each GPU to other hosts
    hop: float = 3e-6  # seconds for a message in a host
    far_hop: float = 10e-6  # seconds for one between hosts

    def told(self, size: float, gpus: int) -> float:
        """Seconds that it takes until all have the sum of a message of so many bytes."""
        local, hosts = min(gpus, self.host), math.ceil(gpus / self.host)
        inside = 2 * (local - 1) * (size / local / self.within + self.hop)
        return inside + 2 * (hosts - 1) / hosts * size / local / self.between + 2 * math.log2(hosts) * self.far_hop


@dataclass(frozen=True)
class Step:
    """What is counted in a step of a network: floating point operations for a picture and for Muon, operations that a
    GPU would launch, kernels that Muon divides, and bytes of gradients, of Muon's steps and of statistics."""

    picture: float
    muon: float
    operations: int
    kernels: int
    gradients: int
    steps: int
    statistics: int

    def seconds(self, machines: Machines, batch: int, gpus: int, launched: bool) -> float:
        """How long it takes on so many GPUs; without what launches take, if they are not `launched` one by one."""
        network = batch * self.picture / machines.flops
        muon = self.muon / min(gpus, self.kernels) / machines.flops
        work = max(network + muon, launched * self.operations * machines.launch)
        if gpus == 1:
            return work
        last = (self.gradients - 1) % BUCKET + 1
        late = max(machines.told(self.gradients, gpus) - 2 / 3 * (work - muon), machines.told(last, gpus))
        return work + late + machines.told(self.steps, gpus) + machines.told(self.statistics, gpus)

    def efficiency(self, machines: Machines, batch: int, gpus: int, launched: bool) -> float:
        """The part of a GPU's time that is not spent on the others, from 0 to 1."""
        return self.seconds(machines, batch, 1, launched) / self.seconds(machines, batch, gpus, launched)


class Operations(TorchDispatchMode):
    """Counts operations that compute something; views do not."""

    count = 0

    def __torch_dispatch__(
        self, operation: OpOverload, types: object, arguments: tuple = (), options: dict[str, Any] | None = None
    ) -> Any:
        self.count += not operation.is_view
        return operation(*arguments, **(options or {}))


def counted(name: str) -> Step:
    """Take two steps of a network, of two pictures each, and count."""
    trainer, batches = training(name, *OPTIONS)
    batch = small(next(batches))
    whole, moving, operations = FlopCounterMode(display=False), FlopCounterMode(display=False), Operations()
    weights = trainer.exit_weights(0)
    with whole:
        trainer.step(batch.images, batch.targets, weights)
    with operations:
        trainer.step(batch.images, batch.targets, weights)
    with moving:
        for optimizer in trainer.optimizers:
            optimizer.step()
    muon, flops = moving.get_total_flops(), whole.get_total_flops()
    (kernels,) = (part.param_groups[0]["params"] for part in trainer.optimizers if isinstance(part, Muon))
    learning = [parameter for parameter in trainer.network.parameters() if parameter.requires_grad]
    numbers, moved, statistics = (
        sum(map(torch.numel, part)) for part in (learning, kernels, trainer.statistics.values())
    )
    return Step((flops - muon) / 2, muon, operations.count, len(kernels), 4 * numbers, 2 * moved, 4 * statistics)


def tables(steps: dict[str, Step], machines: Machines) -> str:
    """Counted, assumed and computed, each under its heading, as Markdown."""
    text = "# Many GPUs, by a model\n\nNothing here was measured on a GPU.\n\n"
    text += "## Counted\n\nIn a step in bf16, with Muon.\n\n"
    text += "| network | GFLOP a picture | GFLOP, Muon | operations | MB of gradients | MB of Muon's steps "
    text += f"| kB of statistics |\n{'|---' * 7}|\n"
    for name, step in steps.items():
        text += f"| {name} | {step.picture / 1e9:.2f} | {step.muon / 1e9:.1f} | {step.operations:,} "
        text += f"| {step.gradients / 1e6:.2f} | {step.steps / 1e6:.2f} | {step.statistics / 1e3:.0f} |\n"
    text += f"\n## Assumed\n\n{assumptions(machines)}\n\n## Computed\n\n"
    text += (
        "Efficiency in percent: as launched / if launches took no time. Above 100, because Muon's work is divided.\n\n"
    )
    text += (
        f"| network | batch per GPU | {' | '.join(f'{gpus:,} GPUs' for gpus in GPUS)} |\n{'|---' * (2 + len(GPUS))}|\n"
    )
    for name, step in steps.items():
        for batch in BATCHES:
            pairs = (
                [100 * step.efficiency(machines, batch, gpus, launched) for launched in (True, False)] for gpus in GPUS
            )
            text += f"| {name} | {batch} | {' | '.join(f'{one:.0f} / {other:.0f}' for one, other in pairs)} |\n"
    return text


def assumptions(machines: Machines) -> str:
    """What is assumed, in words and numbers."""
    return (
        f"{' '.join(Machines.__doc__.split())} {machines.flops / 1e12:.0f} TFLOP/s; {machines.launch * 1e6:.0f} µs a "
        f"launch; {machines.within / 1e9:.0f} GB/s and {machines.hop * 1e6:.0f} µs within a host of {machines.host}, "
        f"{machines.between / 1e9:.0f} GB/s and {machines.far_hop * 1e6:.0f} µs between hosts, each way and for each "
        "GPU. Pictures are never waited for, and no GPU is slower than another."
    )


def draw(path: Path, steps: dict[str, Step], machines: Machines) -> None:
    """A panel for each network: efficiency against GPUs, as launched and without launches."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, len(steps), sharey=True)
    for axes, (name, step) in zip(panels, steps.items(), strict=True):
        for number, batch in enumerate(BATCHES):
            for launched, style in ((True, "o-"), (False, "o--")):
                values = [100 * step.efficiency(machines, batch, gpus, launched) for gpus in GPUS]
                label = f"{batch} a GPU{'' if launched else ', no launches'}"
                axes.semilogx(GPUS, values, style, base=2, color=f"C{number}", label=label)
        axes.set(title=name, xlabel="GPUs", xticks=GPUS, xticklabels=GPUS, ylim=(0, 103))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("efficiency, % (computed, not measured)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    FigureCanvasAgg(figure).print_png(str(path))


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, compute, write the tables and the picture."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    steps, machines = {name: counted(name) for name in NETWORKS}, Machines()
    RESULTS.mkdir(exist_ok=True)
    text = tables(steps, machines)
    (RESULTS / "clusters.md").write_text(text)
    draw(RESULTS / "clusters.png", steps, machines)
    print(text)


if __name__ == "__main__":
    main()
