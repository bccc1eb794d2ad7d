"""Options as text for people: in one line, or as a table in groups."""

import argparse
import textwrap
from collections.abc import Collection, Mapping
from typing import Any

from options.declaration import Default, Option, Program, as_text
from system.text import printable

WIDTH = 110  # columns of the table
NO_BREAK = "\u00a0"  # stands in for a space at which no line may end


def written(options: Mapping[str, Any]) -> str:
    """Options as `name=value name=value …`."""
    return " ".join(f"{name}={as_text(value)}" for name, value in options.items())


def listing(program: Program, options: argparse.Namespace, verbose: bool, without: Collection[str]) -> str:
    """The options of a program in groups, a line each: those that differ from its plain defaults, or all of them; but
    none of those that are named in `without`."""
    groups: dict[str, list[str]] = {}
    for option in program.options:
        value = getattr(options, option.name)
        if option.name not in without and (verbose or value != _default(option, vars(options))):
            groups.setdefault(option.group, []).append(f"{option.name}={in_words(option, value)}")
    if not groups:
        return "all options are at their defaults; --verbose lists them"
    width = max(map(len, groups))
    return "\n".join(_row(title.ljust(width), pairs) for title, pairs in groups.items())


def _default(option: Option, others: Mapping[str, Any]) -> Any:
    return option.default.value(others) if isinstance(option.default, Default) else option.default


def in_words(option: Option, value: Any) -> str:
    """The value of an option, or in parentheses what the help says of its default."""
    return f"({option.default.text})" if value is None else printable(as_text(value))


def _row(title: str, pairs: list[str]) -> str:
    """The pairs after the title of their group, in as many lines as they need; none of them is broken in two."""
    text = "  ".join(pair.replace(" ", NO_BREAK) for pair in pairs)
    rest = " " * (len(title) + 2)
    whole = {"break_long_words": False, "break_on_hyphens": False}
    lines = textwrap.fill(text, WIDTH, initial_indent=f"{title}  ", subsequent_indent=rest, **whole)
    return lines.replace(NO_BREAK, " ")
