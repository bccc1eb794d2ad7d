"""Plots: means over runs, limits that show the curves, whole epochs, any text."""

import io
import statistics
import warnings
from itertools import pairwise

import pytest
from matplotlib.figure import Figure
from PIL import Image

from reports import plots
from reports.plots import Curve, averaged

ODD = "5$ and 6$ \\frac{ \n\u2028\x1b 漢字 \udcff _" + "x" * 300


def line(errors, runs=1, spread=0.0):
    return Curve("exit 14", range(1, len(errors) + 1), errors, [spread] * len(errors), runs)


def limited(*curves):
    axes = Figure().add_subplot()
    plots._limit(axes, curves)
    return axes


def log(epochs, exits):
    columns = [f"{part}_error_{position}" for part in ("train", "test") for position in exits]
    return [dict.fromkeys(columns, 90.0 / epoch) for epoch in range(1, epochs + 1)]


def test_a_mean_goes_as_far_as_all_runs_and_leaves_out_gaps():
    runs = [[{"test_error_5": error} for error in errors] for errors in ((9.0, None, 5.0, 4.0), (7.0, 6.0, 2.0))]
    curve = averaged("exit 5", runs, "test_error_5")
    assert (curve.epochs, curve.mean, curve.runs) == ([1, 3], [8.0, 3.5], 2)
    assert curve.spread == pytest.approx([statistics.stdev([9, 7]), statistics.stdev([5, 2])])
    assert curve.last == "3.50 ± 2.12 %"
    assert averaged("exit 5", runs[:1], "test_error_5").last == "4.00 %"
    assert averaged("exit 5", [runs[0][1:2]], "test_error_5").last == "none yet"


def test_the_error_axis_begins_just_below_the_lowest_error_and_never_below_0():
    low, high = limited(line([50.0, 40.0]), line([30.0, 20.0])).get_ylim()
    assert 17 < low < 20
    assert 50 < high < 53
    assert limited(line([1.0, 0.5], runs=3, spread=2.0)).get_ylim()[0] == 0
    assert limited(line([0.0])).get_ylim() == (0, 1)
    assert limited(line([4.0, 4.0])).get_ylim() == (3, 5)


@pytest.mark.parametrize("epochs", [4, 8, 60, 400])
def test_bad_first_epochs_do_not_press_the_rest_together(epochs):
    settled = [10.0 - 5 * epoch / epochs for epoch in range(epochs)]
    low, high = limited(line([90.0] * (epochs // 4) + settled[epochs // 4 :])).get_ylim()
    assert 4 < low < min(settled)
    assert max(settled[epochs // 4 :]) < high < 11


def test_a_young_run_beside_an_old_one_can_be_seen():
    low, high = limited(line([8.0] * 100), line([70.0, 60.0])).get_ylim()
    assert low < 8
    assert 60 < high < 70


@pytest.mark.parametrize("epochs", [0, 1, 2, 3, 7, 60, 400])
def test_epochs_are_whole_numbers_from_1_on(epochs):
    axes = limited(line([10.0] * epochs))
    left, right = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if left <= tick <= right]
    assert ticks
    assert all(tick == int(tick) >= 1 for tick in ticks)
    assert left < 1 <= max(epochs, 1) < right


@pytest.mark.parametrize("exits", [(14,), (5, 9, 14), tuple(range(3, 30, 2))])
@pytest.mark.parametrize("epochs", [1, 3, 60])
def test_a_run_has_a_plot_after_any_epoch(epochs, exits):
    plot = Image.open(io.BytesIO(plots.draw_run("AuxResNet on DIGITS", log(epochs, exits), exits, "test")))
    assert plot.width == plots.SIZE[0] * plots.RESOLUTION
    assert len(plot.convert("RGB").getcolors(1 << 20)) > 20


def test_the_legend_tells_test_and_training_errors_apart_and_ends_with_the_numbers():
    curve = line([20.0, 10.0], runs=3, spread=0.5)
    groups = [
        plots._Group(f"{name} error", [curve], plots.distinct(1), style)
        for name, style in (("test", "-"), ("training", "--"))
    ]
    (legend,) = plots._figure("title", groups).legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "test error",
        "exit 14: 10.00 ± 0.50 %",
        "training error",
        "exit 14: 10.00 ± 0.50 %",
    ]
    assert [text.get_fontweight() for text in legend.get_texts()] == ["bold", "normal"] * 2
    assert [handle.get_linestyle() for handle in legend.legend_handles] == ["None", "-", "None", "--"]


def test_any_text_is_drawn_as_it_is_and_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.draw_run(ODD, log(2, (5, 14)), (5, 14), "test")
        plots.draw_groups(ODD, {ODD: [line([9.0, 5.0], runs=2, spread=1.0)], "": [Curve(ODD, [], [], [])]})
    assert plots.fitted(ODD, 30).startswith("5$ and 6$ \\frac{ � �� � _xxx")
    assert len(plots.fitted(ODD, 30).splitlines()) == plots.LINES


def test_groups_have_colours_of_their_own_and_exits_shades():
    shades = [plots._shades(hue, 5) for hue in range(10)]
    assert len({colour for group in shades for colour in group}) == 50
    assert [group[-1] for group in shades] == [pytest.approx(colour) for colour in plots.distinct(10)]
    assert all(sum(pale) > sum(full) for group in shades for pale, full in pairwise(group))
    assert len(set(plots.distinct(36))) == 36
    assert plots._shades(0, 1) == [shades[0][-1]]  # alone, an exit has the full colour


def test_a_long_legend_has_room():
    groups = {f"group {number}": [line([9.0, 5.0])] * 5 for number in range(12)}
    plot = Image.open(io.BytesIO(plots.draw_groups("title", groups)))
    assert plot.height > 72 * plots.LEGEND_ROW * plots.RESOLUTION
