"""Names are printed, and quoted for a shell, on one line, whatever is in them."""

import subprocess

import pytest

from system.errors import UserError
from system.text import printable, quoted


@pytest.mark.parametrize(
    "name",
    ["pets", "-it's", "a  b", "new\nline\ttab", "\x1b[2J\x9b31m\u202edog\r\x07", "\x1b'\\$`!\"", "猫\u202e"],
    ids=ascii,
)
def test_a_quoted_word_is_one_line_and_the_same_word_in_a_shell(name):
    assert quoted(name).isprintable()
    process = subprocess.run(["bash", "-c", f"printf %s {quoted(name)}"], capture_output=True)
    assert process.stdout.decode() == name


@pytest.mark.parametrize("text", ["x" * 10**6, 10**5000, "\x1b" * 10**6, "a\nb\u2028c\rd"], ids=type)
def test_an_error_is_one_line_that_ends(text):
    message = str(UserError(f"{printable(text)} is wrong; give another"))
    assert message.isprintable()
    assert len(message) < 300
    assert message.endswith(" is wrong; give another")
    assert len(str(UserError(f"{text}" if isinstance(text, str) else "x"))) <= 4000
