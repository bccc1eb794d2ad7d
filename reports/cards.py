"""Cards: what the exits of a network cost and give, for a terminal and as JSON, and the page about a finished run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import checkpoints
import opts
from datasets import catalog
from datasets.sizing import Sizing
from models import names
from models.names import Configuration
from models.networks import cost
from reports.tables import amount, near, table
from system.output import printable, quoted

LISTED = 20  # classes that a page names
FITTED = {"crop": " (the shorter side scaled, the longer one cropped)", "squeeze": " (both sides scaled)"}


@dataclass(frozen=True)
class ExitCard:
    """What one exit costs as a model of its own, and what it gives. Its fields are those of the JSON."""

    position: int
    file: str  # its name in the folder of the run
    parameters: int
    file_bytes: int
    macs: int  # multiply-adds for one picture, and for its mirror image, if that is looked at, too
    error_percent: float  # top-1
    top5_error_percent: float | None  # None where there are at most 5 classes
    calibration_error_percent: float  # expected calibration error over 15 bins
    failure_auroc: float | None  # 0.5: confidence tells no mistake; 1: it tells all; None: no mistakes, or nothing else
    latency_median_ms: float  # of one picture
    latency_p95_ms: float
    pictures_per_second: float  # in batches of 128
    pareto_optimal: (
        bool  # no other exit has fewer multiply-adds and no more errors, or fewer errors and no more of them
    )


@dataclass(frozen=True)
class Card:
    """What was tested, and its exits, shallow to deep. Its fields are those of the JSON."""

    network: str
    data: str
    pictures: int
    classes: int
    mirror: bool  # whether each picture's mirror image was looked at, too
    precision: str  # float, bf16 or half
    device: str  # "CPU", or the name of the GPU
    threads: int  # of the processor
    exits: tuple[ExitCard, ...]


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which pairs of a cost and an error are Pareto-optimal: no other is as good in both and better in one."""
    return [not any(o != p and o[0] <= p[0] and o[1] <= p[1] for o in points) for p in points]


def as_json(card: Card) -> bytes:
    """A card as JSON."""
    return (json.dumps(asdict(card), indent=2) + "\n").encode()


def exit_card(card: Card, folder: Path) -> str:
    """A card as a table for a terminal, a row for each exit; the files are those in `folder`."""
    exits = card.exits
    mirror = ", each with its mirror image" if card.mirror else ""
    threads = f"{card.threads} thread{'s' if card.threads > 1 else ''}"
    columns = {
        "exit": [str(e.position) for e in exits],
        "parameters": [amount(e.parameters) for e in exits],
        "size": [f"{amount(e.file_bytes)}B" for e in exits],
        "MACs": [amount(e.macs) for e in exits],
        "error": [_percent(e.error_percent) for e in exits],
        "top-5": [_percent(e.top5_error_percent) for e in exits],
        "ECE": [_percent(e.calibration_error_percent) for e in exits],
        "AUROC": ["none" if e.failure_auroc is None else f"{e.failure_auroc:.3f}" for e in exits],
        "ms": [_milliseconds(e.latency_median_ms) for e in exits],
        "p95 ms": [_milliseconds(e.latency_p95_ms) for e in exits],
        "img/s": [f"{e.pictures_per_second:,.0f}" for e in exits],
        "Pareto": ["yes" if e.pareto_optimal else "no" for e in exits],
        "file": [e.file for e in exits],
    }
    return (
        f"{printable(card.network)} on {printable(card.data)}: {card.pictures:,} test pictures{mirror}; "
        f"timed on {card.device}, {threads}, {card.precision}\n"
        f"folder: {printable(str(near(folder)))}/\n\n{table(columns, words={'file'})}"
    )


def _milliseconds(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} %"


def class_table(confusion: Sequence[Mapping[int, int]], classes: Sequence[str]) -> str:
    """The error of each class, the worst first, and the class that its pictures are most often taken for.

    `confusion` has for each class the numbers of pictures by answer.
    """
    rows = []
    for index, (name, counts) in enumerate(zip(classes, confusion, strict=True)):
        wrong = {classes[other]: count for other, count in counts.items() if other != index}
        pictures = sum(counts.values())
        error = 100 * sum(wrong.values()) / pictures if pictures else None
        rows.append((error, name, pictures, wrong))
    rows.sort(key=lambda row: -1 if row[0] is None else row[0], reverse=True)
    columns = {
        "class": [name for _, name, _, _ in rows],
        "pictures": [f"{pictures:,}" for _, _, pictures, _ in rows],
        "error": ["no pictures" if error is None else _percent(error) for error, *_ in rows],
        "most often taken for": [_most(wrong) for *_, wrong in rows],
    }
    return table(columns, words={"class", "most often taken for"})


def _most(wrong: Mapping[str, int]) -> str:
    """The class with the most pictures, and how many these are."""
    return f"{max(wrong, key=wrong.__getitem__)} ({max(wrong.values()):,})" if wrong else ""


def run_card(files: Mapping[int, Path]) -> str:
    """The page (Markdown) about a run, from the headers of its exit files by position and from nothing else: it holds
    no path of the machine and no time of day. UserError, naming the file, where one cannot be read."""
    headers = {position: checkpoints.read_header(path) for position, path in files.items()}
    header, program = headers[max(files)], checkpoints.written_by(files[max(files)])
    configuration, options = names.from_fields(header["network"]), opts.known(header.get("options"))
    epochs, recipe = options.get("nEpochs") or header["epochs"], options.get("recipe") or "paper"
    trained = f"It trains for {epochs} epochs with the recipe `{recipe}`. {printable(program)} wrote the files."
    parts = (
        f"# {printable(header['name'])} on {printable(header['dataset'])}",
        f"{_subject(configuration)} {_task(header)}",
        _exit_rows(headers, configuration),
        f"An exit is named by its position, the layer that it follows. Parameters and multiply-adds (for one picture) "
        f"are those of its model alone; the error is top-1. {_kept(header)}",
        f"## How it was trained\n\n```\n{opts.command(options)}\n```\n\n{trained}",
        f"## How to use it\n\n{_use(header, configuration)}",
        f"## Data and licence\n\n{catalog.row(header['dataset']).terms}",
    )
    return "\n\n".join(parts) + "\n"


def _subject(configuration: Configuration) -> str:
    kind = f"a pre-activation residual network of depth {configuration.depth}"
    if len(configuration.exits) == 1:
        return f"A classifier of pictures: {kind}."
    return (
        f'{len(configuration.exits)} classifiers of pictures ("exits"), each a model of its own, from one training '
        f"of {kind} by multi-way backpropagation ([arXiv 1611.01773](https://arxiv.org/abs/1611.01773))."
    )


def _task(header: Mapping[str, Any]) -> str:
    classes, sizing = header["classes"], Sizing.of(header)
    listed = ", ".join(map(printable, classes[:LISTED])) + (", …" if len(classes) > LISTED else "")
    fit = "" if header["dataset"] in catalog.NAMES else FITTED[sizing.fit]
    return f"Pictures are {sizing.side}×{sizing.side} pixels in colour{fit}, of {len(classes)} classes: {listed}."


def _exit_rows(headers: Mapping[int, Mapping[str, Any]], configuration: Configuration) -> str:
    """The exits as a Markdown table."""
    lines = []
    for position, header in headers.items():
        price = cost(configuration, len(header["classes"]), position, Sizing.of(header).side)
        file = checkpoints.exit_path(Path(), position).name
        cells = (position, f"{price.parameters:,}", f"{price.macs:,}", _percent(header["error"]), file)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    title = f"| exit | parameters | multiply-adds | {header['errorOn']} error | file |"
    return "\n".join([title, "|---:|---:|---:|---:|---|", *lines])


def _kept(header: Mapping[str, Any]) -> str:
    """Which epoch's models were kept, and on what pictures their errors were measured."""
    after = f"The models are those of epoch {header['epochs']}"
    if header["errorOn"] == "test":
        return f"{after}, the last."
    held_out = opts.known(header.get("options")).get("valSize") or 0
    return f"{after}, which did best on {held_out:,} held-out training pictures; the errors are those on these."


def _use(header: Mapping[str, Any], configuration: Configuration) -> str:
    """Commands and code; they name the folder as the run named it."""
    data, side, classes = header["dataset"], Sizing.of(header).side, len(header["classes"])
    run = f"path/to/{printable(names.run_folder(data, configuration))}"
    argument = quoted(data if data in catalog.NAMES else f"path/to/{data}")
    return f"""From the folder of AuxResNet:

```
python test.py {argument} {quoted(run)} --exit all
python predict.py {quoted(run)} picture.png
```

In Python; `model` turns N×{side}×{side}×3 bytes into N×{classes} probabilities, `predict` takes pictures of any size:

```python
import torch

model = torch.hub.load("path/to/AuxResNet", "auxresnet", name={json.dumps(run, ensure_ascii=False)}, source="local")
print(model.predict(["picture.png"]))  # the likeliest class, and its probability
```"""
