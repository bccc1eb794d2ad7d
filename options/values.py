"""The kinds of values that options take, as argparse types: each turns text into a value, or says what is legal."""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets.catalog import ENDINGS, NAMES, spelled
from datasets.sizing import SIDES
from models.names import EXIT_NAME, EXIT_SUFFIX
from system.files import is_folder

GOALS = ("budgetMACs", "budgetMs", "maxErrorIncrease")  # what a policy may be for
PROTOCOLS = THRESHOLD, MSDNET = "threshold", "msdnet"  # by which thresholds may be chosen
ALL, ENSEMBLE = "all", "ensemble"  # in place of the position of an exit
EXPORTED = (".onnx", ".pt2")  # endings of files of export.py that run without this program
MODELS = (EXIT_SUFFIX, ".pt", *EXPORTED)


def number(kind: type, low: float, high: float) -> Callable[[str], Any]:
    """An argparse type: an int or a finite float from `low` to `high`, both included."""
    noun = "a whole number" if kind is int else "a number"
    legal = f"{noun} from {low:.12g} to {high:.12g}"

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # false for NaN, too
            raise argparse.ArgumentTypeError(f"{text!r} is not {legal}")
        return value

    return convert


def side(text: str) -> int:
    """A side of pictures in pixels that networks take, one of `SIDES`."""
    value = number(int, SIDES[0], SIDES[-1])(text)
    if value not in SIDES:
        below = value - value % SIDES.step
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a multiple of {SIDES.step}; nearest: {below}, {below + SIDES.step}"
        )
    return value


def boolean(text: str) -> bool:
    """true or false, in one of several spellings."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return words[text.lower()]


def boolean_or_auto(text: str) -> bool | str:
    """true, false, or auto."""
    try:
        return "auto" if text.lower() == "auto" else boolean(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true, false nor auto") from error


def dataset(*splits: str) -> Callable[[str], str]:
    """An argparse type: the name of a data set, in any case, or the path of a folder that has one of these splits;
    without splits, of any folder, which need not be there."""
    described = f"folder with {' or '.join(f'{split}/<class>/' for split in splits)}" if splits else "name of a folder"

    def convert(text: str) -> str:
        if (name := spelled(text)) in NAMES:
            return name
        if text and (not splits or any(is_folder(text, split) for split in splits)):  # an empty one is meant by nobody
            return text
        raise argparse.ArgumentTypeError(f"{text!r} is neither one of {', '.join(NAMES)} nor a {described}")

    return convert


def folder(text: str) -> str:
    """The path of a folder that is there."""
    if not text or not is_folder(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder")
    return text


def new_folder(text: str) -> str:
    """The path of a folder that is to be made."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a folder")
    return text


def old_file(text: str) -> str:
    """The path of a file that is there: no folder, and no pipe, which would be waited for."""
    try:
        found = Path(text).is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a file")
    return text


def multiply_adds(text: str) -> float:
    """A number of multiply-adds, such as 60M."""
    scale = {"k": 1e3, "m": 1e6, "g": 1e9}.get(text[-1:].lower(), 1)
    try:
        return scale * number(float, 1 / scale, 1e15 / scale)(text if scale == 1 else text[:-1])
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of multiply-adds from 1 to 1e15, such as 60M"
        ) from error


def positions(text: str) -> tuple[int, ...]:
    """Positions of exits, such as 15,35,56."""
    if not re.fullmatch(r"[0-9]{1,5}(,[0-9]{1,5})*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of positions such as 15,35,56")
    return tuple(map(int, text.split(",")))


def weights(text: str) -> str | tuple[float, ...]:
    """sum, depth, or a weight for each exit, not all of them 0."""
    if text.lower() in ("sum", "depth"):
        return text.lower()
    try:
        values = tuple(map(number(float, 0, 1e6), text.split(",")))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not sum, depth or a list such as 0.5,1: {error}") from error
    if not any(values):
        raise argparse.ArgumentTypeError(f"{text!r} leaves nothing to learn from; at least one weight must be above 0")
    return values


def file(ending: str) -> Callable[[str], str]:
    """An argparse type: the name of a file with this ending, such as .png."""

    def convert(text: str) -> str:
        if Path(text).suffix.lower() != ending or "\0" in text:
            kind = ending[1:].upper()
            raise argparse.ArgumentTypeError(f"{text!r} is not the name of a {kind} file, such as result{ending}")
        return text

    return convert


def text(text: str) -> str:
    """A name or a path. An empty one, which a shell makes of a variable that is not set, stands for the folder at hand
    to the system, and is meant by nobody."""
    if not text:
        raise argparse.ArgumentTypeError(f"{text!r} is empty; give a name or a path")
    return text


def answer_file(path: str) -> str:
    """The name of a file for answers, with no ending that pictures or networks have: a forgotten word would have put it
    in the place of one of them."""
    suffix = Path(text(path)).suffix.lower()
    if suffix in (*ENDINGS, ".gif", *MODELS):
        kind = suffix[1:].upper()
        raise argparse.ArgumentTypeError(f"{path!r} would be a {kind} file; give one such as classes.csv")
    return path


def exported(text: str) -> str:
    """The name of a file that export.py can write."""
    if "\0" in text or not (Path(text).suffix in EXPORTED or EXIT_NAME.fullmatch(Path(text).name)):
        legal = "the name of a .onnx, a .pt2 or an exit-<position>.safetensors file"
        raise argparse.ArgumentTypeError(f"{text!r} is not {legal}")
    return text


layer = number(int, 1, 99999)  # a depth, a position or a number of exits, until a network is known that may have it


def exit_position(text: str) -> int | str:
    """all, ensemble, or the position of one exit."""
    if text.lower() in (ALL, ENSEMBLE):
        return text.lower()
    try:
        return layer(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither all, ensemble nor a position such as 19") from error
