"""Numbers and JSON from files."""

import math

import pytest

from system import strict


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": NaN}', "not finite: NaN"),
        ("[-Infinity]", "not finite: -Infinity"),
        ("1e999", "not finite: 1e999"),
        (f"[{10**400}]", "a number of 401 digits"),
        ("9" * 10_000, "a number of 10000 digits"),
        ('{"a": {"b": 1, "b": 1}}', "one name twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("{", "Expecting"),
        (b"\xff\xfe{", "decode"),
        (b"\x80", "decode"),
        ("", "Expecting"),
    ],
    ids=range(12),
)
def test_json_that_does_not_say_one_thing_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        strict.loads(text)


def test_json_that_says_one_thing_is_read():
    assert strict.loads('{"a": [1, -2.5, 1e-9, null, true, "\\u6f22"]}') == {"a": [1, -2.5, 1e-9, None, True, "漢"]}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "1", None, [1], 10**400, 101, -1, 1j])
def test_what_is_no_number_of_a_range(value):
    assert not strict.is_number(value, 0, 100)


def test_numbers_of_a_range_and_of_a_kind():
    assert strict.is_number(0, 0, 100)
    assert strict.is_number(100.0, 0, 100)
    assert strict.is_number(-1e308, -math.inf, math.inf)
    assert not strict.is_number(1.0, 0, 100, int)


def test_an_integer_that_no_float_comes_near_is_no_number():
    assert strict.is_number(10**300, 0, math.inf)
    assert not strict.is_number(10**309, 0, math.inf)
    assert not strict.is_number(-(10**309), -math.inf, math.inf)
