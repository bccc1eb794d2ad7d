"""Options from a file: from TOML that a user wrote, from the opt.json that a run left, from the header of an exit."""

import json
import tomllib
from argparse import ArgumentTypeError
from collections.abc import Container
from contextlib import suppress
from pathlib import Path
from typing import Any

from options.declaration import Default, Option, Program, as_text
from system import strict
from system.errors import UsageError, UserError, failures_as
from system.files import read, regular
from system.strict import is_number
from system.text import printable

FILE = "opt.json"  # of a run
LARGEST = 1 << 16  # bytes
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple: "a list"}


def is_plain(value: Any) -> bool:
    """Whether an option could be saved like this: as a plain value or a list of such, without numbers that have no
    end; None stands for a default that depends on something."""
    values = value if isinstance(value, list | tuple) else [value]
    return all(item is None or type(item) in (bool, str) or is_number(item, -1e15, 1e15) for item in values)


def given(path: Path, program: Program, overridden: Container[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values that a file gives, by option, as `Program.given` has those of a command line, but none for options
    that are `overridden`; and the values of all options in the file, the overridden ones as they stand there. In a
    run's own record (opt.json), options of one command only are passed over, and a null is None, which stands for a
    default.

    Raises UsageError naming the file, the option, what was given and what is legal.
    """
    try:
        found = _found(_content(path), program, recorded=is_record(path))
        counting = {name: value for name, value in found.items() if name not in overridden}
        told = {name: value for name, value in counting.items() if value is not None}
        values = counting | program.given([f"--{name}={as_text(value)}" for name, value in told.items()])
        for name, value in told.items():
            if not is_kind_of(value, values[name]):
                legal = f"{KINDS[type(values[name])]}: {json.dumps(values[name])}"
                raise UserError(f"{name} is {json.dumps(value)}; it has to be {legal}")
    except UserError as error:
        raise UsageError(f"--config {path}: {error}") from error
    return values, {**found, **values}


def is_record(path: Path) -> bool:
    """Whether a file is an opt.json, or a copy of one."""
    return path.suffix.lower() == ".json"


def _content(path: Path) -> Any:
    if regular(path).st_size > LARGEST:
        raise UserError(f"it has more than {LARGEST:,} bytes, and no options need as many")
    try:
        text = read(path).decode("utf-8-sig")  # some editors begin a file with a mark
        return strict.loads(text) if is_record(path) else tomllib.loads(text)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        kind = "JSON" if is_record(path) else "TOML"
        raise UserError(f"it cannot be read as {kind}: {error}") from error


def _found(content: Any, program: Program, recorded: bool) -> dict[str, Any]:
    """What is in a file, under the names of options, which may be written in any case."""
    if not isinstance(content, dict):
        raise UserError(f"it holds no options by name, but {printable(content, 40)}")
    known, found = program.by_name, {}
    for name, value in content.items():
        option = known.get(name.lower())
        if option is None:
            near = program.nearest(name)
            meant = f"; is {near.name} meant?" if near else ""
            raise UserError(f"{printable(name, 40)} is no option of {program.name}{meant} (see --help)")
        if recorded and (option.once or (value is None and not isinstance(option.default, Default))):
            continue
        if option.once:
            raise UserError(f"{name} is for the command line alone; leave it out")
        if option.name in found:
            raise UserError(f"{option.name} is there twice")
        if not is_plain(value):
            raise UserError(
                f"{name} is {printable(value, 40)}; legal are texts, numbers below 1e15, true, false, lists of numbers"
            )
        found[option.name] = value
    return found


def is_kind_of(value: Any, read: Any) -> bool:
    """Whether a saved value, whose text is legal, is of the kind of what was read from that; a list may be written as a
    text, as on the command line, and a number without its fraction."""
    return type(value) in {tuple: (tuple, list, str), float: (float, int)}.get(type(read), (type(read),))


def load(folder: Path) -> Any:
    """What the opt.json of a run holds; UserError if there is none."""
    try:
        return strict.loads(read(folder / FILE))
    except UserError as error:
        if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise
        meant = f"; is {folder.parent} meant?" if folder.is_file() else ""
        raise UserError(f"{folder} is not the folder of a run: {FILE} and exit files are in one{meant}") from error
    except ValueError as error:
        raise UserError(f"{folder / FILE} does not hold the options of a run: {error}") from error


def recorded(folder: Path, program: Program) -> dict[str, Any]:
    """The options of a run, as it recorded them, by name; what its version did not know has the default. UserError if
    there are none. They are not checked: their data set need not be here."""
    saved = load(folder)
    with failures_as(lambda _: f"{folder / FILE} does not hold the options of a run"):
        if not are_of(saved, program):
            raise ValueError
        return program.resolved(saved)  # which fails where a default follows from an option that is of another kind


def are_of(saved: Any, program: Program) -> bool:
    """Whether a run could have saved options of a program like this: by their names, the depth among them, as plain
    values or lists of such."""
    options = {option.name for option in program.options}
    return isinstance(saved, dict) and "depth" in saved and all(_is_of(*item, options) for item in saved.items())


def _is_of(name: object, value: object, options: Container[str]) -> bool:
    return type(name) is str and name in options and is_plain(value)


def known(shaped: Any, program: Program) -> dict[str, Any]:
    """What the header of an exit file says of its run's options, as a command line gives them: those that the program
    knows, with values that it allows; None stands for the default."""
    saved = shaped if isinstance(shaped, dict) else {}
    options, found = {option.name: option for option in program.options}, {}
    for name, value in saved.items():
        with suppress(ArgumentTypeError):
            if _is_of(name, value, options):
                found[name] = _as_given(options[name], value)
    return found


def _as_given(option: Option, value: Any) -> Any:
    """What a command line would give for a saved value; a data set, as a label, may be called anything. Raises
    ArgumentTypeError where it would give no such value."""
    if value is None or (option.name == "data" and type(value) is str):
        return value
    read = option.kind(as_text(value))
    legal = option.choices is None or read in option.choices
    if option.free_on_resume or not (legal and is_kind_of(value, read)):
        raise ArgumentTypeError(f"{option.name} cannot be {value!r}")
    return read
