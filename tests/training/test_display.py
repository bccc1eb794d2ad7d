"""What shows the log of a run: how often curves are drawn."""

from types import SimpleNamespace

from reports import plots
from training import display
from training.display import Display


def test_drawing_takes_a_twentieth_of_the_time_at_most_and_never_misses_the_end(tmp_path, monkeypatch):
    seconds, drawn = [0], []

    def draw(*_):
        drawn.append(seconds[0])
        seconds[0] += 1
        return b""

    monkeypatch.setattr(plots, "draw_run", draw)
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    files = SimpleNamespace(folder=tmp_path, exits={}, write=lambda *_: None)
    shown = Display("title", files, "test", False, print)
    for second in range(50):
        seconds[0] = second
        shown.show([], last=second == 49)
    assert drawn == [0, 20, 40, 49]
