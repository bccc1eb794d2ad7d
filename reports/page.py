"""The page about a finished run, `README.md` in its folder: what it is, how it was trained, how it is used."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import opts
from datasets import catalog
from datasets.sizing import Sizing
from formats import exit_file
from models import names
from models.names import Configuration
from models.networks import cost
from options.recipes import BY_DATASET
from reports import tables
from system.text import printable, quoted

FILE = "README.md"
LISTED = 20  # classes that a page names
FITTED = {"crop": " (the shorter side scaled, the longer one cropped)", "squeeze": " (both sides scaled)"}


def of_run(files: Mapping[int, Path]) -> str:
    """The page (Markdown) about a run, from the headers of its exit files by position and from nothing else: it holds
    no path of the machine and no time of day. UserError, naming the file, where one cannot be read."""
    headers = {position: exit_file.read_header(path) for position, path in files.items()}
    header, program = headers[max(files)], exit_file.written_by(files[max(files)])
    configuration, options = names.from_fields(header["network"]), opts.of_header(header)
    epochs, recipe = options.get("nEpochs") or header["epochs"], options.get("recipe") or "paper"
    own = f" and the defaults of {header['dataset']}" if header["dataset"] in BY_DATASET else ""
    trained = (
        f"It trains for {tables.epochs(epochs)}; what the command leaves open is as in the recipe `{recipe}`{own}. "
        f"{_begun(header['origin'])}{_extended(header['extended'])}{_shared(header['shares'])}"
        f"{printable(program)} wrote the files."
    )
    parts = (
        f"# {printable(header['name'])} on {printable(header['dataset'])}",
        f"{_subject(configuration)} {_task(header)}",
        _exit_rows(headers, configuration),
        f"An exit is named by its position, the layer that it follows. Parameters and multiply-adds (for one picture) "
        f"are those of its model alone; the error is top-1. {_kept(header, configuration, options)}",
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
        f'A family of {len(configuration.exits)} classifiers of pictures ("exits"), each a model of its own, from one '
        f"training of {kind} by multi-way backpropagation ([arXiv 1611.01773](https://arxiv.org/abs/1611.01773))."
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
        error, file = tables.percent(header["error"]), names.exit_name(position)
        cells = (position, f"{price.parameters:,}", f"{price.macs:,}", error, file)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    title = f"| exit | parameters | multiply-adds | {header['errorOn']} error | file |"
    return "\n".join([title, "|---:|---:|---:|---:|---|", *lines])


def _kept(header: Mapping[str, Any], configuration: Configuration, options: Mapping[str, Any]) -> str:
    """Which epoch's models were kept, and on what pictures their errors were measured."""
    after = "The model is that" if len(configuration.exits) == 1 else "The models are those"
    after += f" of epoch {header['epochs']}"
    if header["errorOn"] == "test":
        return f"{after}, the last."
    held_out = options.get("valSize") or 0
    return (
        f"{after}, which did best on {held_out:,} held-out training pictures, and the table has the errors on "
        "these. `test.py` tells those on test pictures, where there are any."
    )


def _begun(before: Sequence[Mapping[str, Any]]) -> str:
    """What the weights had behind them that a run began with, if these were not fresh."""
    if not before:
        return ""
    return f"It began with the weights of {printable(before[-1]['run'])}, trained for {tables.trainings(before)}. "


def _extended(former: Sequence[int]) -> str:
    """For how many epochs a run was to go on, each time before it was given more."""
    if not former:
        return ""
    begun = ", then ".join(map(str, former))
    return f"It was begun for {begun} and given more later; the command alone may train otherwise. "


def _shared(shares: int) -> str:
    """Among how many processes and GPUs batches were divided when the run ended: batch norms, without --syncBN, see
    only one part."""
    return f"At its end each batch was divided among {shares} processes or GPUs. " if shares > 1 else ""


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
