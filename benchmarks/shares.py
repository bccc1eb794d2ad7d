"""Where the time of a training step goes: convolutions, optimizer, the rest, in float32 and bfloat16.

The convolutions alone set a bound on the images that a step can do in a second; their share of the step says how near
it comes to that bound.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch

from benchmarks.cases import convolutions, optimizer, ours
from benchmarks.timing import interleaved

DTYPES = {"float": torch.float32, "bf16": torch.bfloat16}
TITLES = ("network", "batch", "precision", "images/s", "bound, images/s", "convolutions", "optimizer", "the rest")


def measure(name: str, batch: int, options: Sequence[str], rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of a whole step, of its convolutions and of its optimizer, by precision; all take turns."""
    cases = {}
    for precision, dtype in DTYPES.items():
        line = (*options, "--nThreads", "0", "--precision", precision)
        cases[precision, "step"] = partial(ours, name, *line, batch=batch)
        cases[precision, "convolutions"] = partial(convolutions, name, batch, dtype)
        cases[precision, "optimizer"] = partial(optimizer, name, *line, "--compile", "false", batch=batch)
    seconds = interleaved(cases, rounds, warm_up=1)
    return {p: {part: seconds[p, part] for part in ("step", "convolutions", "optimizer")} for p in DTYPES}


def row(name: str, batch: int, precision: str, seconds: Mapping[str, float]) -> tuple[str, ...]:
    """The cells under `TITLES`."""
    step, bound = seconds["step"], seconds["convolutions"]
    parts = (bound / step, seconds["optimizer"] / step, 1 - (bound + seconds["optimizer"]) / step)
    shown = (f"{100 * part:.0f} %" for part in parts)
    return name, str(batch), precision, f"{batch / step:.1f}", f"{batch / bound:.1f}", *shown


def markdown(*rows: Sequence[str]) -> str:
    """Rows of a table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
