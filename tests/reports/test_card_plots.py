"""The plots of a test: every exit labelled, the Pareto-optimal ones joined, classes named, any text drawn."""

import io
import warnings

import pytest
from PIL import Image

from reports import card_plots
from reports.card_plots import Line, Point

EXITS = [Point("exit 15", 33e6, 19.23), Point("exit 25", 56e6, 10.32), Point("exit 35", 79e6, 11.0)]
ODD = "5$ and \\frac{ \n\x1b 漢字 \udcff _" + "x" * 300


def test_every_point_is_labelled_and_the_optimal_ones_are_joined():
    (axes,) = card_plots._tradeoff("title", {"exits": EXITS, "early exit": [Point("policy", 40e6, 10.0)]}).axes
    labels = [text.get_text() for text in axes.texts]
    assert labels == ["exit 15\n19.23 %", "exit 25\n10.32 %", "exit 35\n11.00 %", "policy\n10.00 %"]
    joined, others, policy = axes.lines
    assert list(joined.get_xdata()) == [33e6, 56e6]
    assert (list(others.get_xdata()), others.get_linestyle()) == ([79e6], "None")
    assert list(policy.get_ydata()) == [10.0]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["exits, Pareto-optimal", "exits, others", "early exit"]


def test_a_curve_is_drawn_in_the_colour_of_the_last_series():
    series = {"exits": EXITS, "early exit": [Point("policy", 40e6, 10.0)]}
    (axes,) = card_plots._tradeoff("title", series, Line("thresholds", [(33e6, 19.23), (79e6, 9.0)])).axes
    drawn = {line.get_label(): line for line in axes.lines}
    assert list(drawn["thresholds"].get_ydata()) == [19.23, 9.0]
    assert drawn["thresholds"].get_color() == drawn["early exit"].get_color() != drawn["exits, others"].get_color()


def test_all_that_is_drawn_is_in_the_plot():
    for points in (EXITS, [Point("one", 1e9, 0.0)], [Point(str(n), n * 1e6, 50.0 - n) for n in range(1, 40)]):
        (axes,) = card_plots._tradeoff("title", {"exits": points}).axes
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        assert all(left < p.macs < right and low <= p.error < high for p in points)
        assert low >= 0


@pytest.mark.parametrize("classes", [1, 2, 10, 21, 101])
def test_classes_are_named_and_counted_as_far_as_there_is_room(classes):
    confusion = [{row: 9, 0: 1} if row else {0: 10} for row in range(classes)]
    names = [f"class {index}" for index in range(classes)]
    axes, _ = card_plots._confusion("title", confusion, names).axes
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert (shown == names) == (classes <= card_plots.NAMED)
    assert len(axes.texts) == (2 * classes - 1 if classes <= card_plots.WRITTEN else 0)
    plot = Image.open(io.BytesIO(card_plots.draw_confusion("title", confusion, names)))
    assert max(plot.size) <= (card_plots.LARGEST + 1) * 120


def test_ten_thousand_classes_share_cells():
    confusion = [{row: 3, (row + 5000) % 10000: 1} for row in range(10000)]
    shares = card_plots._shares(confusion, 13)
    assert len(shares) == 770
    assert shares[0][0] == 75
    assert all(sum(row) == pytest.approx(100) for row in shares)
    axes, _ = card_plots._confusion("title", confusion, [f"class {index}" for index in range(10000)]).axes
    assert axes.get_xlabel() == "answer, 13 to a cell"


def test_a_class_without_pictures_is_drawn_empty():
    axes, _ = card_plots._confusion("title", [{0: 3, 1: 1}, {}], ["a", "b"]).axes
    assert [text.get_text() for text in axes.texts] == ["75.0", "25.0"]


def test_any_text_is_drawn_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        card_plots.draw_tradeoff(ODD, {"exits": [Point(ODD, 1e6, 5.0)]})
        card_plots.draw_confusion(ODD, [{0: 1}, {1: 1}], [ODD, "\n"])
