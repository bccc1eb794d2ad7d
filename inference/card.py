"""The exit card, measured: what each exit of a saved model costs, how well it answers, how fast it is."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inference import asking, latency, saved
from inference.saved import SavedModel
from models import metrics
from models.networks import cost
from reports.cards import Card, ExitCard, pareto
from system.machine import Machine

TOP = 5  # the top-5 error is told where there are more classes


def measure(
    model: SavedModel, data: str, logits: Sequence[Tensor], targets: Tensor, machine: Machine, mirror: bool = False
) -> Card:
    """The card of a model: how well it answers, from the logits of each exit, N×classes, and the N targets of all test
    pictures of `data`; how fast it is, on the first device."""
    device = machine.device
    answers = [quality(z, targets) for z in logits]
    costs = [_cost(model, position, mirror) for position in model.files]
    optimal = pareto([(c["macs"], a["error_percent"]) for c, a in zip(costs, answers, strict=True)])
    speeds = _speeds([saved.standalone(model, position) for position in model.files], machine, mirror)
    return Card(
        network=model.header["name"],
        data=data,
        pictures=len(targets),
        classes=len(model.header["classes"]),
        mirror=mirror,
        precision=machine.precision,
        device="CPU" if device.type == "cpu" else torch.cuda.get_device_name(device),
        threads=torch.get_num_threads(),
        exits=tuple(
            ExitCard(position=position, pareto_optimal=best, **price, **answer, **speed)
            for position, best, price, answer, speed in zip(model.files, optimal, costs, answers, speeds, strict=True)
        ),
    )


def quality(logits: Tensor, targets: Tensor) -> dict[str, Any]:
    """The fields of an exit's card that follow from its logits for all pictures, N×classes, and the N targets."""
    return {
        "error_percent": metrics.top_error(logits, targets),
        "top5_error_percent": metrics.top_error(logits, targets, TOP) if logits.shape[1] > TOP else None,
        "calibration_error_percent": metrics.calibration_error(logits, targets),
        "failure_auroc": metrics.failure_auroc(logits, targets),
    }


def _cost(model: SavedModel, position: int, mirror: bool) -> dict[str, Any]:
    """The fields of an exit's card that say what it takes to store it and to run it."""
    price = cost(model.configuration, len(model.header["classes"]), position, model.sizing.side)
    file = model.files[position]
    return {
        "file": file.name,
        "file_bytes": file.stat().st_size,
        "parameters": price.parameters,
        "macs": price.macs * (2 if mirror else 1),
    }


def _speeds(alone: Sequence[SavedModel], machine: Machine, mirror: bool) -> list[dict[str, float]]:
    """The fields of each exit's card that are times, of its standalone model; the exits take turns."""
    models, side = [asking.ready(model, [machine.device], mirror) for model in alone], alone[0].sizing.side
    one_by_one = latency.latencies(models, side, machine)
    in_batches = latency.throughputs(models, side, machine)
    return [
        {"latency_median_ms": one.median, "latency_p95_ms": one.p95, "pictures_per_second": rate}
        for one, rate in zip(one_by_one, in_batches, strict=True)
    ]
