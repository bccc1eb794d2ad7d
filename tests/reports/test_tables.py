"""Tables and lines that a person reads: aligned, complete, without None, whatever the names."""

from pathlib import Path

from formats import log_file
from models import names
from models.metrics import Result
from reports.tables import amount, epoch_line, exit_table, table

NETWORK = names.configure(14, 2, (9, 14))
FILES = {9: Path("run/exit-9.safetensors"), 14: Path("run/exit-14.safetensors")}


def test_numbers_are_flush_right_and_words_flush_left():
    text = table({"nr": ["1", "10"], "name": ["a", "longer"], "error": ["3.91 %", ""]}, words={"name"})
    assert text.splitlines() == [
        "nr  name     error",
        "--  ------  ------",
        " 1  a       3.91 %",
        "10  longer",
    ]


def test_a_column_without_text_is_left_out():
    assert table({"a": ["1"], "b": [""], "c": []}).splitlines() == ["a", "-", "1"]


def test_names_cannot_break_a_table():
    text = table({"name": ["two\nlines", "猫", "\udcff"], "nr": ["1", "2", "3"]}, words={"name"})
    assert text.splitlines() == ["name       nr", "---------  --", "two�lines   1", "猫          2", "�           3"]
    text.encode()


def test_the_table_of_exits_names_what_was_measured():
    tested = exit_table(NETWORK, 10, 32, {"test error": (5.0, 3.914)}, FILES).splitlines()
    assert tested[0].split("  ") == ["exit", "parameters", "multiply-adds", "test error", "file"]
    assert tested[3].split()[0] == "14"
    assert tested[3].endswith("  3.91 %  run/exit-14.safetensors")
    both = {"validation error": (6.0, 4.5), "test error": (5.0, 3.914)}
    validated = exit_table(NETWORK, 10, 32, both, FILES).splitlines()
    assert "multiply-adds  validation error  test error  file" in validated[0]
    assert validated[3].endswith("  4.50 %      3.91 %  run/exit-14.safetensors")


def test_counts_have_three_digits():
    counts = (0, 970, 1000, 33_338, 99_960, 853_018, 999_499, 999_500, 5_243_810_000, 1_234_000_000_000)
    shown = ["0", "970", "1.00 k", "33.3 k", "100 k", "853 k", "999 k", "1.00 M", "5.24 G", "1.23 T"]
    assert [amount(count) for count in counts] == shown


def test_an_epoch_is_one_line():
    trained, tested = Result(1.5, (30.0, 25.0)), Result(1.2, (20.0, 15.125))
    seconds = {"training": 10.0, "testing": 2.3, "other": 0.04}
    rows = [log_file.row(1, (9, 14), trained, "validation", result, 0.1, 500, seconds) for result in (tested, None)]
    line, untested = (epoch_line(row, 10, (9, 14), "validation") for row in rows)
    assert line == (
        "epoch  2/10  12.3 s  loss 1.500  train error 9: 30.00 14: 25.00  validation error 9: 20.00 14: 15.12"
    )
    assert untested == line.partition("  validation")[0]
