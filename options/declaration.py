"""How an option is declared, in one place, and what follows from that: the parser, the help, the default.

Options may be written as in the Lua scripts: with one dash, and in any case (`-batchSize 256`).
"""

import argparse
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal, NoReturn, TextIO

from system.errors import UsageError

NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?(,.*)?$")  # a number, or a list that begins with one
SPELLING = "Options may be written -likeThis, in any case."


@dataclass(frozen=True)
class Default:
    """A default that depends on something, in the words of the help. `value` finds it from the other options; without
    one it is None, and whoever uses the option does what the words say."""

    text: str
    value: Callable[[Mapping[str, Any]], Any] = lambda others: None


@dataclass(frozen=True)
class Option:
    """One option of one or more programs."""

    name: str
    kind: Callable[[str], Any]  # text -> value; an ArgumentTypeError says what is legal
    default: Any  # a value or a Default; None for what has to be given
    help: str
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    alone: Any = None  # what the option means without a value; None: it needs one
    positional: bool = False
    several: bool = False  # of a positional one: one value or more
    auto: bool = False  # whether `auto` leaves the value to the machine
    free: Literal["never", "between runs", "on resume"] = "never"  # see `free_between_runs`
    once: bool = False  # for one command only: no file of options may have it, and in a run's record it is passed over
    programs: tuple[str, ...] = ()  # those of its group, unless it says otherwise
    group: str = ""

    @property
    def free_on_resume(self) -> bool:
        """Whether a resumed run may have another value, and exit files do not say which: it is of the machine or of
        the place. (What else a resumed run may change, and when, `opts.resumed` decides.)"""
        return self.free == "on resume"

    @property
    def free_between_runs(self) -> bool:
        """Whether runs of one configuration may differ in it; what is free on resume is free between runs, too."""
        return self.free != "never"


def group(title: str, *options: Option, programs: tuple[str, ...] = ("main.py",)) -> tuple[Option, ...]:
    """The options, under a title of the help of these programs."""
    return tuple(replace(option, group=title, programs=option.programs or programs) for option in options)


@dataclass(frozen=True)
class Program:
    """A program's command line: its options, what its help says around them, the check of what may not be together,
    and by name the sets of defaults that take the place of the plain ones."""

    name: str
    options: tuple[Option, ...]
    description: str
    epilog: str
    check: Callable[[argparse.Namespace], None] = lambda options: None  # raises UsageError
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def given(self, argv: Sequence[str]) -> dict[str, Any]:
        """The values that a command line gives, by option, and nothing for the options that it leaves out.

        Options may stand between the values of a positional one; what follows `--` are such values, whatever it looks
        like. (argparse ends such values at an option, and its parse_intermixed_args loses the `--`.) Raises UsageError
        naming the option, what was given and what is legal.
        """
        end = argv.index("--") if "--" in argv else len(argv)
        options, others = self._parser(whole=False).parse_known_args(list(self._spelled(argv[:end])))
        parser = self._parser()
        found, unknown = parser.parse_known_args([*others, *argv[end:]], options)
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}{self._meant(unknown[0])}")
        return vars(found)

    def parsed(self, argv: Sequence[str]) -> argparse.Namespace:
        """The options of a command line, each with its value or its default. Raises UsageError as `given` does, and for
        options that may not be together."""
        return self.checked(self.given(argv))

    def checked(self, values: Mapping[str, Any]) -> argparse.Namespace:
        """These values, and the defaults of the other options, checked together."""
        options = argparse.Namespace(**self.resolved(values))
        self.check(options)
        return options

    def resolved(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A value for every option: one of these, or its default. Those that depend on others are found last."""
        derived = {option.name: option.default for option in self.options if isinstance(option.default, Default)}
        plain = {option.name: None if option.name in derived else option.default for option in self.options}
        result = {**plain, **values}
        found = {name: default.value(result) for name, default in derived.items() if result[name] is None}
        return {**result, **found}

    def shown(self, option: Option) -> str:
        """The default in words, with those of the presets that have another: `step; fast, long: onecycle`."""
        default = option.default.text if isinstance(option.default, Default) else as_text(option.default)
        names: dict[str, list[str]] = {}
        for name, of in self.presets.items():
            if option.name in of:
                names.setdefault(as_text(of[option.name]), []).append(name)
        return "; ".join([default, *(f"{', '.join(alike)}: {value}" for value, alike in names.items())])

    @property
    def by_name(self) -> dict[str, Option]:
        """The options that are given by their names, by these in lower case."""
        return {option.name.lower(): option for option in self.options if not option.positional}

    def nearest(self, name: str) -> Option | None:
        """The option whose name is most like this one; None where none is like it."""
        options = {option.name.lower(): option for option in self.options}
        found = get_close_matches(name.lower(), options, 1)
        return options[found[0]] if found else None

    def _meant(self, argument: str) -> str:
        """What helps whoever has given an argument that is none."""
        if not argument.startswith("-"):
            return "; values follow their options, lists are written without spaces"
        near = self.nearest(argument.strip("-").partition("=")[0])
        if near and near.positional:
            return f"; {near.name} is given without its name"
        return f"; is --{near.name} meant?" if near else ""

    def _parser(self, whole: bool = True) -> argparse.ArgumentParser:
        """A parser of the whole command line, or else of its options alone, without the help."""
        parser = _Parser(
            prog=self.name,
            add_help=whole,
            usage=" ".join(["python", self.name, *self._positionals(), "[options]"]),
            description=self.description,
            epilog=f"{SPELLING} {self.epilog}",
            allow_abbrev=False,
        )
        titles = dict.fromkeys(option.group for option in self.options)
        groups = {title: parser.add_argument_group(title) for title in titles}
        for option in self.options:
            if whole or not option.positional:
                self._add(groups[option.group], option)
        return parser

    def _positionals(self) -> Iterator[str]:
        for option in self.options:
            if option.positional:
                yield (option.metavar or option.name) + (" ..." if option.several else "")

    def _add(self, group: argparse._ArgumentGroup, option: Option) -> None:
        more = {"type": option.kind, "metavar": option.metavar, "choices": option.choices}
        help = option.help.replace("%", "%%")  # argparse fills in what follows a %
        if option.positional:
            group.add_argument(option.name, help=help, nargs="+" if option.several else None, **more)
            return
        if option.alone is not None:
            more |= {"nargs": "?", "const": option.alone}
        default = self.shown(option).replace("%", "%%")
        help = f"{help} (default: {default})"
        group.add_argument(f"--{option.name}", default=argparse.SUPPRESS, help=help, **more)

    def _spelled(self, argv: Sequence[str]) -> Iterator[str]:
        """The arguments with every option in its own spelling, and every home by its path: `-batchSize=256` becomes
        `--batchsize=256`, `--save=~/runs`, which shells leave as it is, `--save=/home/ann/runs`."""
        known = {"help": "--help", **{name: f"--{option.name}" for name, option in self.by_name.items()}}
        may_be_alone = {f"--{option.name}" for option in self.options if option.alone is not None}
        alone = None  # such an option, if the argument before this one is it
        for argument in argv:
            match = re.fullmatch(r"--?([A-Za-z]+)(?:=(.*))?", argument, re.DOTALL)
            flag = known.get(match[1].lower()) if match else None
            if (alone and not argument) or (flag in may_be_alone and match[2] == ""):  # a variable that is not set
                raise UsageError(f"argument {alone or flag}: '' is empty; give a value, or leave it out (see --help)")
            alone = flag if flag in may_be_alone and match[2] is None else None
            if not flag:
                yield _at_home(argument)
            elif match[2] is None:
                yield flag
            elif match[2] == "--" or not _can_be_encoded(match[2]):  # argparse takes -- for no value at all
                raise UsageError(f"argument {flag}: {match[2]!r} is not a value (see --help)")
            else:
                yield f"{flag}={_at_home(match[2])}"


def _at_home(text: str) -> str:
    """A text in which a `~` at the beginning is the user's home, where there is such a home."""
    try:
        return os.path.expanduser(text)  # noqa: PTH111 (a Path would raise where it knows no such home)
    except ValueError:  # a lone surrogate, or a zero byte, which are no name of a user
        return text


def _can_be_encoded(text: str) -> bool:
    """Whether the system could be given this, as the name of a file, for one: it has no zero byte, and no half of a
    character, as JSON may have."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


class _Parser(argparse.ArgumentParser):
    """argparse with its errors raised, endless values cut, instead of printed under a page of usage."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.color = False  # which Python 3.14 puts into the help
        self._negative_number_matcher = NEGATIVE  # argparse takes -1e-3 for an option, and says nothing of its value

    def print_help(self, file: TextIO | None = None) -> None:
        """argparse's own keeps silent where the help cannot be written."""
        print(self.format_help(), end="", file=file)

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"(\S{80})\S+", r"\1...", message)
        raise UsageError(f"{message} (see --help)")


def as_text(value: Any) -> str:
    """A value as it is written on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(as_text, value)) if isinstance(value, tuple | list) else str(value)
