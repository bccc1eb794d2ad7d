"""Cards: what the exits of a network cost and give, for a terminal and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from reports.tables import amount, percent, table
from system import files, strict
from system.text import printable


@dataclass(frozen=True)
class ExitCard:
    """What one exit costs as a model of its own, and what it gives. Its fields are those of the JSON."""

    position: int
    file: str  # its name in the folder of the run
    parameters: int
    file_bytes: int
    macs: int  # multiply-adds for one picture; twice as many where its mirror image is asked, too
    error_percent: float  # top-1
    top5_error_percent: float | None  # None where there are at most 5 classes
    calibration_error_percent: float  # expected calibration error over 15 bins
    failure_auroc: float | None  # mistakes are less sure: 0.5 by chance, 1 always; None: no mistakes, or only such
    latency_median_ms: float  # of one picture
    latency_p95_ms: float
    pictures_per_second: float  # in batches of 128; of pictures above 32 pixels of fewer, at least 16
    pareto_optimal: bool  # no other exit is as good in multiply-adds and error, and better in one of them


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
    return strict.dumps(asdict(card))


def as_text(card: Card, folder: Path) -> str:
    """A card as a table for a terminal, a row for each exit; the files are those in `folder`."""
    exits = card.exits
    mirror = ", each with its mirror image" if card.mirror else ""
    threads = f"{card.threads} thread{'s' if card.threads > 1 else ''}"
    columns = {
        "exit": [str(e.position) for e in exits],
        "parameters": [amount(e.parameters) for e in exits],
        "size": [f"{amount(e.file_bytes)}B" for e in exits],
        "MACs": [amount(e.macs) for e in exits],
        "error": [percent(e.error_percent) for e in exits],
        "top-5": [percent(e.top5_error_percent) for e in exits],
        "ECE": [percent(e.calibration_error_percent) for e in exits],
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
        f"folder: {printable(str(files.near(folder)))}/\n\n{table(columns, words={'file'})}"
    )


def _milliseconds(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


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
        "error": ["no pictures" if error is None else percent(error) for error, *_ in rows],
        "most often taken for": [_most(wrong) for *_, wrong in rows],
    }
    return table(columns, words={"class", "most often taken for"})


def _most(wrong: Mapping[str, int]) -> str:
    """The class with the most pictures, and how many these are."""
    return f"{max(wrong, key=wrong.__getitem__)} ({max(wrong.values()):,})" if wrong else ""
