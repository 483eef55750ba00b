"""Drawing of retention by model and language."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from repsim.plots.appearance import FAINT, GREY, Look, Size, line_marker, looks, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.names import wrapped
from repsim.plots.retention import COLLAPSE, RetentionData, RetentionRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_retention(data: RetentionData, *, size: Size = "medium") -> Figure:
    """Draw prepared retention: a line per model, a marker per language.

    Raises:
        UsageError: The size is unknown.
    """
    from matplotlib.lines import Line2D

    width = width_of(size)
    found = dict(zip(data.languages, looks(["other"] * len(data.languages)), strict=True))
    key = [
        Line2D([], [], linestyle="", label=name, **line_marker(look))
        for name, look in found.items()
    ]
    with style():
        height = 0.75 + 0.34 * len(data.rows)
        figure = fig.new_figure(width, height, data.title, data.note, key=key)
        ax = figure.subplots()
        _draw_frame(ax, data)
        for place, row in enumerate(data.rows):
            _draw_row(ax, row, place, found)
        fig.freeze(figure)
    return figure


def _draw_frame(ax: Axes, data: RetentionData) -> None:
    ends = [np.array([p.value, p.low, p.high]) for row in data.rows for p in row.points]
    values = np.concatenate(ends)
    values = values[np.isfinite(values)]
    low, high = min(-0.05, float(values.min()) - 0.05), max(1.05, float(values.max()) + 0.05)
    ax.axvspan(low, COLLAPSE, color="#F3E4DC", linewidth=0, zorder=0)
    ax.axvline(COLLAPSE, color=GREY, linewidth=0.9, linestyle=(0, (3.5, 2)), zorder=1)
    for at in (0.0, 1.0):
        ax.axvline(at, color=FAINT, linewidth=0.8, zorder=1)
    ax.set_xlim(low, high)
    ax.set_ylim(len(data.rows) - 0.4, -0.6)
    ax.set_yticks(range(len(data.rows)), [wrapped(row.model, 22) for row in data.rows])
    figure = fig.figure_of(ax)
    room = float(figure.get_size_inches()[0]) - 1.6
    label = "retention (0 unigrams, 1 best parent; shaded: collapse)"
    ax.set_xlabel(fig.fitted(figure, label, room))


def _draw_row(ax: Axes, row: RetentionRow, place: int, found: dict[str, Look]) -> None:
    reach = [point.value for point in row.points]
    ax.plot([min(reach), max(reach)], [place, place], color=FAINT, linewidth=1.4, zorder=1.5)
    for point in row.points:
        look = found[point.language]
        if np.isfinite(point.low):
            ends = [point.low, point.high]
            ax.plot(ends, [place, place], color=look.line, linewidth=1.0, zorder=2)
        ax.plot([point.value], [place], linestyle="", zorder=3, **line_marker(look))
