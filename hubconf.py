"""The networks for torch.hub, in any process, whatever else is loaded there.

model = torch.hub.load("path/to/this/folder", "auxresnet", dataset="CIFAR10", name="AuxResNet-56-5", exit=45,
                       source="local")
model.predict(["cat.png"])                                   # [("cat", 0.9386)]
model(torch.cat([model.preprocess(p) for p in pictures]))    # N×side×side×3 uint8 -> N×classes probabilities
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets.sizing import Sizing
    from inference.classifier import Classifier

if sys.version_info < (3, 11):  # noqa: UP036
    raise ImportError(f"AuxResNet needs Python 3.11 or newer; this is {sys.version.split()[0]}")

dependencies = ["torch", "numpy", "PIL", "safetensors", "tqdm"]
HERE = Path(__file__).resolve().parent
ALL = "all"  # in place of the position of an exit


def auxresnet(
    dataset: str = "CIFAR10",
    name: str = "AuxResNet-56-5",
    exit: int | str | None = None,
    pretrained: bool = True,
    classes: int | None = None,
    save: str = "./",
    data_dir: str = "./data",
    input_size: int | None = None,
) -> "Classifier":
    """One exit of a network (None: the last that learnt), as a module from N×side×side×3 uint8 pictures to N×classes
    probabilities; or ("all") the network with all exits that have a file, which answers with the deepest of them.

    It has `classes`, `normalise`, `preprocess`, `predict` and `card`; its `network` gives, of normalised pictures, a
    list with the N×classes logits of each exit that it has.

    With `pretrained`, `name` is a network's name, which is looked for in `save` and in `pretrained/`, or the path of a
    run's folder or of an exit file. Without, it is a fresh network, in training mode: its class names and normalisation
    are those of the data set in `data_dir`, or there are `classes` classes, and no data are needed; its pictures are
    `input_size` pixels high and wide (None: 32).

    To keep it after more training, save its `state_dict()`: it cannot be pickled, because Python finds its modules in
    this folder only.

    Raises a ValueError that says what is wrong and what is legal; ImportError where a package is missing that a fresh
    network's data set is read with.
    """
    with _own_modules():
        from datasets.catalog import spelled

        _check(exit, dataset=dataset, name=name, save=save, data_dir=data_dir)
        dataset, name, save, data_dir = map(os.path.expanduser, (dataset, name, save, data_dir))
        dataset = spelled(dataset)
        if pretrained:
            _check_left_open(classes=classes, input_size=input_size)
            return _trained(dataset, name, exit, save)
        return _fresh(dataset, name, exit, classes, data_dir, input_size)


def _check(exit: object, **paths: object) -> None:
    """Raise UserError for arguments of other types."""
    from system.errors import UserError

    for what, value in paths.items():
        if not isinstance(value, str | os.PathLike):
            raise UserError(f"{what} is a text or a path, not {value!r}")
    if not (exit is None or type(exit) is int or (type(exit) is str and exit == ALL)):
        raise UserError(f"exit is a position such as 45, {ALL!r}, or None for the last exit that learnt, not {exit!r}")


def _check_left_open(**of_fresh_networks: object) -> None:
    """Raise UserError for arguments that a trained network has no use for."""
    from system.errors import UserError

    for what, value in of_fresh_networks.items():
        if value is not None:
            raise UserError(f"{what} is for fresh networks; a trained one has its own; give pretrained=False")


def _trained(dataset: str, name: str, exit: int | str | None, save: str) -> "Classifier":
    from datasets import catalog
    from inference import saved
    from inference.classifier import Classifier, card_of
    from models import names

    model = saved.find(name, names.folder_called(catalog.label(dataset), name), exit, save)
    return Classifier(model.network, model.normalise, card_of(model.header)).eval()


def _fresh(
    dataset: str, name: str, exit: int | str | None, classes: int | None, data_dir: str, input_size: int | None
) -> "Classifier":
    from datasets import catalog
    from datasets.sizing import LEGAL_SIDES, SIDE, SIDES, Sizing
    from datasets.transforms import Normalise
    from formats.exit_file import MAX_CLASSES
    from inference.classifier import Classifier
    from models import names, networks
    from system.errors import UserError
    from system.strict import is_number

    configuration = names.parse(name)
    kept = {None: configuration.exits[-1:], ALL: configuration.exits}.get(exit, (exit,))
    if not set(kept) <= set(configuration.exits):
        raise UserError(f"{name} has no exit {exit}; there are: {', '.join(map(str, configuration.exits))}")
    input_size = SIDE if input_size is None else input_size
    if type(input_size) is not int or input_size not in SIDES:
        raise UserError(f"input_size is {LEGAL_SIDES}, not {input_size}")
    if classes is not None and not is_number(classes, 1, MAX_CLASSES, int):
        raise UserError(f"classes is how many there are, a whole number from 1 to {MAX_CLASSES:,}, not {classes!r}")
    sizing = Sizing(input_size)
    about = _about(dataset, classes, data_dir, sizing)
    network = networks.build(configuration, len(about["classes"]), kept)
    known = {"network": asdict(configuration), "name": name, "dataset": catalog.label(dataset)}
    card = {**known, "position": kept[-1], "epochs": 0, **about, **sizing.fields()}
    return Classifier(network, Normalise(about["mean"], about["std"]), card)


def _about(dataset: str, classes: int | None, data_dir: str, sizing: "Sizing") -> dict[str, Any]:
    """The class names and the normalisation of a fresh network."""
    from datasets import catalog, splits

    if classes is None:
        names, mean, std = splits.classes_and_normalisation(
            catalog.find(dataset, Path(data_dir), extra=False, sizing=sizing)
        )
        return {"classes": list(names), "mean": mean, "std": std}
    row = catalog.row(dataset)
    mean, std = row.mean or (0.0,) * 3, row.std or (255.0,) * 3  # what has none of its own is brought to 0 … 1
    return {"classes": list(map(str, range(classes))), "mean": mean, "std": std}


@contextmanager
def _own_modules() -> Iterator[None]:
    """While open, imports find this folder's modules, whatever others of the same names are loaded; afterwards the
    process has the modules and the search path that it had. What was made goes on working: it needs no imports."""
    own = {path.stem for path in HERE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    path, others = list(sys.path), _taken(own)
    sys.path.insert(0, str(HERE))
    try:
        yield
    finally:
        _taken(own)
        sys.modules.update(others)
        sys.path[:] = path


def _taken(names: set[str]) -> dict[str, Any]:
    """The loaded modules of these names, and those within them; they are loaded no more."""
    found = [name for name in sys.modules if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in found}
