"""Cards: a table that fits a terminal, JSON that reads back."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from programs import PROJECT
from reports import cards
from reports.cards import Card, ExitCard, as_text, pareto

EXIT = ExitCard(
    position=164,
    file="exit-164.safetensors",
    parameters=36_536_884,
    file_bytes=145_999_999,
    macs=5_243_810_000,
    error_percent=100.0,
    top5_error_percent=99.99,
    calibration_error_percent=88.88,
    failure_auroc=0.98765,
    latency_median_ms=99.94,
    latency_p95_ms=234.567,
    pictures_per_second=12_345.6,
    pareto_optimal=True,
)
CARD = Card("AuxResNet-26-2/10", "CIFAR100", 10_000, 100, False, "float", "CPU", 2, (EXIT, EXIT))


def test_the_page_about_cards_has_every_field_of_the_json():
    page = (PROJECT / "docs" / "card.md").read_text()
    assert not [field.name for kind in (ExitCard, Card) for field in fields(kind) if f"`{field.name}`" not in page]


def test_the_table_fits_a_terminal_even_with_large_numbers():
    lines = as_text(CARD, Path("runs/CIFAR100-AuxResNet-26-2-w10")).splitlines()
    assert lines[0] == "AuxResNet-26-2/10 on CIFAR100: 10,000 test pictures; timed on CPU, 2 threads, float"
    assert lines[1:3] == ["folder: runs/CIFAR100-AuxResNet-26-2-w10/", ""]
    assert max(map(len, lines)) <= 120
    assert lines[-1] == (
        " 164      36.5 M  146 MB  5.24 G  100.00 %  99.99 %  88.88 %  0.988  99.9     235  12,346     yes"
        "  exit-164.safetensors"
    )


def test_what_a_network_has_not_is_left_out_or_said():
    few = replace(EXIT, top5_error_percent=None, failure_auroc=None, pareto_optimal=False)
    title, _, row = as_text(replace(CARD, classes=5, mirror=True, exits=(few,)), Path("/x")).splitlines()[3:]
    assert "top-5" not in title
    assert row.split()[9:12] == ["88.88", "%", "none"]
    assert row.split()[-2] == "no"
    assert "each with its mirror image" in as_text(replace(CARD, mirror=True), Path("/x"))


def test_a_folder_below_is_shown_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "\nfolder: runs/a/\n" in as_text(CARD, tmp_path / "runs" / "a")
    assert "\nfolder: /elsewhere/a/\n" in as_text(CARD, Path("/elsewhere/a"))


def test_json_holds_every_field_with_its_unit():
    read = json.loads(cards.as_json(CARD))
    assert ExitCard(**read["exits"][0]) == EXIT
    assert read["network"] == "AuxResNet-26-2/10"
    assert (read["threads"], read["mirror"]) == (2, False)


@pytest.mark.parametrize(
    ("points", "optimal"),
    [
        ([(1, 9), (2, 5), (3, 5), (4, 1)], [True, True, False, True]),
        ([(1, 5), (2, 6), (3, 4)], [True, False, True]),
        ([(1, 5), (1, 5)], [True, True]),  # one is as good as the other
        ([(1, 5), (1, 4)], [False, True]),
        ([(3, 1)], [True]),
        ([], []),
    ],
)
def test_what_is_pareto_optimal(points, optimal):
    assert pareto(points) == optimal


def test_classes_come_worst_first_and_say_what_they_are_taken_for():
    confusion = [{0: 9, 1: 1}, {1: 4, 2: 4}, {2: 5}, {}]
    text = cards.class_table(confusion, ["ant", "bee", "cat", "none"])
    assert [line.split() for line in text.splitlines()[2:]] == [
        ["bee", "8", "50.00", "%", "cat", "(4)"],
        ["ant", "10", "10.00", "%", "bee", "(1)"],
        ["cat", "5", "0.00", "%"],
        ["none", "0", "no", "pictures"],
    ]
    assert "only" in cards.class_table([{0: 3}], ["only"])
