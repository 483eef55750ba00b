"""Drawing of controls with known answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from repsim.plots.appearance import Look, looks, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.study.axes import DIES, LIVES, marker, retention_axis
from repsim.plots.names import wrapped
from repsim.plots.study.controls import ControlRow, ControlsData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_controls(data: ControlsData) -> Figure:
    """Draw prepared controls: a row per kind and alignment, a bar where they should lie."""
    from matplotlib.lines import Line2D

    width = width_of("wide")
    found = dict(zip(data.languages, looks(["other"] * len(data.languages)), strict=True))
    with style():
        key = [Line2D([], [], linestyle="", label=name, **marker(look))
               for name, look in found.items()]  # fmt: skip
        figure = fig.new_figure(width, 0.6 + 0.27 * len(data.rows), data.title, data.note, key=key)
        ax = figure.subplots()
        values = [point.retention for row in data.rows for point in row.points]
        retention_axis(ax, values, "x", shade=False)
        for place, row in enumerate(data.rows):
            _draw_row(ax, row, place, found)
        ax.set_ylim(len(data.rows) - 0.4, -0.6)
        names = [wrapped(row.label, 62, 1) for row in data.rows]
        ax.set_yticks(range(len(data.rows)), names)
        ax.set_xlabel("retention (bar: expected)")
        fig.freeze(figure)
    return figure


def _draw_row(ax: Axes, row: ControlRow, place: int, found: dict[str, Look]) -> None:
    low, high = row.expected
    left, right = ax.get_xlim()
    ends = max(low, left), min(high, right)
    colour = DIES if np.isinf(low) else LIVES
    ax.fill_between(
        ends, place - 0.3, place + 0.3, color=colour, alpha=0.16, linewidth=0, zorder=1.5
    )
    order = list(found)
    for point in row.points:
        shift = 0.36 * ((order.index(point.language) + 0.5) / len(order) - 0.5)
        options = marker(found[point.language])
        if not point.met:
            options |= {"markeredgecolor": "#C00000", "markeredgewidth": 1.6}
        ax.plot([point.retention], [place + shift], linestyle="", zorder=3, **options)
    ax.axhline(place, color="#EEF0F2", linewidth=0.8, zorder=0)
