"""The picture of a run: error of each exit against epochs."""

import io
from collections.abc import Mapping, Sequence
from typing import Any


def draw(title: str, rows: Sequence[Mapping[str, Any]], exits: Sequence[int], held_out: str) -> bytes:
    """The errors of the log's `rows`, in percent, as a PNG: a colour per exit, training errors dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes half a second to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) < 30 else None
    for index, position in enumerate(exits):
        test = [row[f"{held_out}_error_{position}"] for row in rows]
        train = [row[f"train_error_{position}"] for row in rows]
        label = f"exit {position}: {test[-1]:.2f} %"
        axes.plot(epochs, test, color=f"C{index}", marker=marker, markersize=4, label=label)
        axes.plot(epochs, train, color=f"C{index}", linestyle="--", linewidth=1)
    axes.plot([], [], color="grey", label=held_out)
    axes.plot([], [], color="grey", linestyle="--", linewidth=1, label="train")
    axes.set(title=title, xlabel="epoch", ylabel="error (%)", ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    return picture.getvalue()
