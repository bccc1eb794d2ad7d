"""What follows from the declaration of an option: parser, spelling, help, default, and whether it may change."""

import re

import pytest

from options.declaration import Default, Option, Program, as_text, group
from system.errors import UsageError

DOUBLE = Default("twice --size", lambda others: 2 * others["size"])
PROGRAM = Program(
    "cut.py",
    (
        *group("what", Option("pictures", str, None, "which", "PICTURE", positional=True, several=True)),
        *group(
            "how",
            Option("size", int, 4, "side in 100 % of pixels", "PX"),
            Option("maxSide", int, DOUBLE, "largest side"),
            Option("shape", str.lower, "round", "outline", choices=("round", "square")),
            Option("border", float, 0.0, "width", alone=0.5),
            Option("seed", int, Default("by chance"), "of randomness"),
        ),
    ),
    "Cut pictures.",
    "Example: python cut.py a.png",
    presets={"plain": {}, "large": {"size": 400, "shape": "square"}},
)


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("a b", {}),
        ("a b -SIZE 3", {"size": 3}),
        ("a b --maxside=3 -border", {"maxSide": 3, "border": 0.5}),
        ("-border 2 -Shape=SQUARE a b", {"border": 2.0, "shape": "square"}),
        ("a -size 3 b -maxside 5", {"size": 3, "maxSide": 5}),
        ("-size 3 a -maxside 5 -- b", {"size": 3, "maxSide": 5}),
    ],
)
def test_only_what_is_given_is_in_the_result_in_whatever_spelling(line, given):
    assert PROGRAM.given(line.split()) == {"pictures": ["a", "b"], **given}


def test_options_may_stand_between_the_values_of_a_positional_one():
    assert PROGRAM.given(["-", "-size", "3", "b"]) == {"pictures": ["-", "b"], "size": 3}
    assert PROGRAM.given(["a", "-size", "3", "--", "-Size", "5"]) == {"pictures": ["a", "-Size", "5"], "size": 3}
    assert PROGRAM.given(["-size", "3", "--", "--help"]) == {"pictures": ["--help"], "size": 3}
    with pytest.raises(UsageError, match=r"unrecognized arguments: --weight b \(see --help\)"):
        PROGRAM.given(["a", "--weight", "b"])
    with pytest.raises(UsageError, match="required: PICTURE"):
        PROGRAM.given(["-size", "3", "--"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a --sise=3", "--sise=3; is --size meant?"),
        ("a --max-side=3", "--max-side=3; is --maxSide meant?"),
        ("a --Picture", "--Picture; pictures is given without its name"),
    ],
)
def test_what_may_be_meant_is_told(line, words):
    with pytest.raises(UsageError, match=re.escape(f"unrecognized arguments: {words} (see --help)")):
        PROGRAM.given(line.split())


def test_defaults_are_values_or_follow_from_others():
    assert PROGRAM.resolved({"pictures": ["a"]}) == {
        "pictures": ["a"], "size": 4, "maxSide": 8, "shape": "round", "border": 0.0, "seed": None
    }  # fmt: skip
    assert PROGRAM.resolved({"size": 5})["maxSide"] == 10
    assert PROGRAM.resolved({"size": 5, "maxSide": 7})["maxSide"] == 7


def test_help_is_made_of_the_declarations(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        PROGRAM.given(["-Help"])
    text = capsys.readouterr().out
    for part in (
        "usage: python cut.py PICTURE ... [options]",
        "what:\n  PICTURE ",
        "how:\n  --size PX ",
        "side in 100 % of pixels (default: 4; large: 400)",
        "largest side (default: twice --size)",
        "(default: round; large: square)",
        "of randomness (default: by chance)",
        "Example: python cut.py a.png\n",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", ["PICTURE", "required"]),
        ("a --size x", ["--size", "'x'"]),
        ("a --shape oval", ["--shape", "'oval'", "round", "square"]),
        ("a --si 3", ["--si"]),
        ("a --size " + "x" * 500, ["--size", "x..."]),
    ],
)
def test_mistakes_are_raised_and_cut(line, words):
    with pytest.raises(UsageError) as caught:
        PROGRAM.given(line.split())
    assert len(str(caught.value)) < 200
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("free", "on_resume", "between_runs"),
    [("never", False, False), ("between runs", False, True), ("on resume", True, True)],
)
def test_what_is_free_on_resume_is_free_between_runs(free, on_resume, between_runs):
    option = Option("size", int, 4, "side", free=free)
    assert (option.free_on_resume, option.free_between_runs) == (on_resume, between_runs)


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), ((15, 35), "15,35"), ([0.5, 1.0], "0.5,1.0"), (1e-4, "0.0001"), ("a b", "a b")]
)
def test_values_as_text(value, text):
    assert as_text(value) == text
