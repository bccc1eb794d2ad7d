"""Cards: what the exits of a network cost and give, for a terminal and as JSON, and the page about a finished run."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import checkpoints
import opts
from datasets import catalog
from models import names
from models.names import Configuration
from models.networks import cost
from reports.tables import amount, shown, table

LISTED = 20  # classes that a page names


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
        "ms": [f"{e.latency_median_ms:.2f}" for e in exits],
        "p95 ms": [f"{e.latency_p95_ms:.2f}" for e in exits],
        "images/s": [f"{e.pictures_per_second:,.0f}" for e in exits],
        "Pareto": ["yes" if e.pareto_optimal else "no" for e in exits],
        "file": [e.file for e in exits],
    }
    return (
        f"{shown(card.network)} on {shown(card.data)}: {card.pictures:,} test pictures{mirror}; "
        f"timed on {card.device}, {threads}, {card.precision}\n"
        f"folder: {shown(str(_near(folder)))}/\n\n{table(columns, words={'file'})}"
    )


def _near(folder: Path) -> Path:
    """A folder's path from where the user is, if it is below."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} %"


def class_table(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """The error of each class, the worst first, and the class that its pictures are most often taken for.

    `confusion` has a row for each class and a column for each answer, in numbers of pictures.
    """
    rows = []
    for index, (name, counts) in enumerate(zip(classes, confusion, strict=True)):
        total, wrong = sum(counts), sum(counts) - counts[index]
        other, most = max(((o, count) for o, count in enumerate(counts) if o != index), key=lambda pair: pair[1])
        taken_for = f"{classes[other]} ({most:,})" if most else ""
        rows.append((100 * wrong / total if total else 0.0, name, f"{total:,}", taken_for))
    rows.sort(key=lambda row: -row[0])
    errors, class_names, totals, confused = zip(*rows, strict=True)
    columns = {
        "class": class_names,
        "pictures": totals,
        "error": [_percent(error) for error in errors],
        "most often taken for": confused,
    }
    return table(columns, words={"class", "most often taken for"})


def run_card(headers: Mapping[int, Mapping[str, Any]], program: str) -> str:
    """The page (Markdown) about a run, from the headers of its exit files by position, and the `program` that wrote
    them. Nothing else is in it: no path of the machine, no time of day."""
    header = headers[max(headers)]
    configuration, options = names.from_fields(header["network"]), header.get("options", {})
    epochs, recipe = options.get("nEpochs", header["epochs"]), options.get("recipe", "paper")
    trained = f"It trains for {epochs} epochs with the recipe `{recipe}`."
    parts = (
        f"# {shown(header['name'])} on {shown(header['dataset'])}",
        f"{_subject(configuration)} {_task(header['classes'])}",
        _exit_rows(headers, configuration),
        f"An exit is named by its position, the layer that it follows. Parameters and multiply-adds (for one picture) "
        f"are those of its model alone; the error is top-1. {_kept(header)}",
        f"## How it was trained\n\n```\n{opts.command(options)}\n```\n\n{trained} Written by {shown(program)}.",
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


def _task(classes: Sequence[str]) -> str:
    listed = ", ".join(map(shown, classes[:LISTED])) + (", …" if len(classes) > LISTED else "")
    return f"Pictures are 32×32 pixels in colour, of {len(classes)} classes: {listed}."


def _file(position: int) -> str:
    return checkpoints.exit_path(Path(), position).name


def _exit_rows(headers: Mapping[int, Mapping[str, Any]], configuration: Configuration) -> str:
    """The exits as a Markdown table."""
    lines = []
    for position, header in headers.items():
        price = cost(configuration, len(header["classes"]), position)
        cells = (position, f"{price.parameters:,}", f"{price.macs:,}", _percent(header["error"]), _file(position))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    title = f"| exit | parameters | multiply-adds | {header['errorOn']} error | file |"
    return "\n".join([title, "|---:|---:|---:|---:|---|", *lines])


def _kept(header: Mapping[str, Any]) -> str:
    """Which epoch's models were kept, and on what pictures their errors were measured."""
    after = f"The models are those of epoch {header['epochs']}"
    if header["errorOn"] == "test":
        return f"{after}, the last."
    held_out = header.get("options", {}).get("valSize", 0)
    return f"{after}, which did best on {held_out:,} held-out training pictures; the errors are those on these."


def _use(header: Mapping[str, Any], configuration: Configuration) -> str:
    """Commands and code; they name the folder as the run named it."""
    data, last = header["dataset"], configuration.exits[-1]
    folder = shown(names.run_folder(data, configuration))
    argument = shlex.quote(data if data in catalog.NAMES else f"path/to/{data}")
    mean, std = (", ".join(f"{value:.6g}" for value in header[name]) for name in ("mean", "std"))
    return f"""From the folder that holds this one, with the program beside it (otherwise give the path of `test.py`):

```
python test.py {shown(argument)} {shlex.quote(folder)} --exit all
```

In Python:

```python
from pathlib import Path

from inference import saved

model = saved.load({{{last}: Path("{folder}/{_file(last)}")}})
(logits,) = model.network(pictures)  # N×3×32×32 -> N×{len(header["classes"])}; model.header["classes"] has the names
```

`pictures` are RGB values from 0 to 255, normalised per channel: less mean ({mean}), divided by standard deviation
({std})."""
