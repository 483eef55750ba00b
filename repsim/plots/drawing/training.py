"""Drawing of training curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repsim.plots.appearance import GREY, Look, Size, looks, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.labels import EndLabel, spread_end_labels, write_end_labels
from repsim.plots.training import TrainingData, TrainingPanel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_training(data: TrainingData, *, size: Size = "wide") -> Figure:
    """Draw prepared training curves, one frame per language and one for the training loss.

    Raises:
        UsageError: The size is unknown.
    """
    from matplotlib.lines import Line2D

    width = width_of(size)
    count = len(data.panels)
    columns = min(count, 1 if size == "single" else 3)
    rows = -(-count // columns)
    runs = {curve.label: curve.role for panel in data.panels for curve in panel.curves}
    found = dict(zip(runs, looks(list(runs.values())), strict=True))
    key = [Line2D([], [], label=label, **_line(look)) for label, look in found.items()]
    with style():
        height = rows * (width / columns) * 0.78 + 0.3
        figure = fig.new_figure(width, height, data.title, data.note, key=key)
        frames = list(figure.subplots(rows, columns, squeeze=False).ravel())
        for spare in frames[count:]:
            spare.remove()
        for frame, panel in zip(frames, data.panels, strict=False):
            _draw_panel(frame, panel, found)
        fig.freeze(figure)
        for frame in frames[:count]:
            spread_end_labels(frame)
    return figure


def _line(look: Look) -> dict[str, Any]:
    return {
        "color": look.line,
        "marker": look.marker,
        "markersize": 2.6,
        "markerfacecolor": look.fill if look.filled else "white",
        "markeredgecolor": look.line,
        "linewidth": 1.2,
    }


def _draw_panel(ax: Axes, panel: TrainingPanel, found: dict[str, Look]) -> None:
    ax.grid(visible=True, axis="y")
    for curve in panel.curves:
        options = _line(found[curve.label])
        if len(curve.value) > 30:
            options |= {"marker": ""}
        ax.plot(curve.tokens, curve.value, label=curve.label, **options)
    if panel.floor is not None:
        ax.axhline(panel.floor, color=GREY, linewidth=0.9, linestyle=(0, (3.5, 2)))
        write_end_labels(ax, [EndLabel(panel.floor, "unigrams", GREY, bold=False)], size=7.0)
    ax.set_title(panel.title, loc="left")
    ax.set_xlabel("million tokens")
    if panel.title.endswith("token)"):
        ax.set_title("training loss", loc="left")
        ax.set_ylabel("nats per token")
    else:
        ax.set_ylabel("bits per byte")
