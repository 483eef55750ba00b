"""Drawing of the reliability of probabilities, with the number of merges beneath."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from repsim.plots.appearance import FAINT, GREY, Size, looks, style
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.validation.layout import panel_grid
from repsim.plots.validation.reliability import BINS, ReliabilityData, ReliabilityPanel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Strip beneath the diagram that holds the counts, in units of its height.
_STRIP = 0.24


def draw_reliability(data: ReliabilityData, *, size: Size = "wide") -> Figure:
    """Draw prepared reliability, one frame per split.

    Args:
        data: What `prepare_reliability` returned.
        size: Width of the figure.

    Raises:
        UsageError: The size is unknown.
    """
    count = len(data.panels)
    width, columns, rows = panel_grid(count, size)
    with style():
        room = min(width / columns, 3.9)
        height = rows * (room + 0.4)
        figure = fig.new_figure(width, height, data.title, data.note)
        frames = fig.panel_axes(figure, count, columns)
        for frame, panel in zip(frames, data.panels, strict=True):
            _draw_frame(frame)
            _draw_counts(frame, panel)
            _draw_panel(frame, panel)
            fig.title_panel(frame, panel.title, room - 0.5, y=1.075)
            note = fig.fitted(figure, panel.note, room - 0.3, size=7, lines=1)
            frame.text(
                0, 1.015, note, transform=frame.transAxes, fontsize=7, color=GREY, va="bottom"
            ).set_in_layout(False)
        fig.keep_left(figure, room * columns)
        if count == 1:
            frames[0].set(xlabel="probability of collapse, foretold", ylabel="share collapsed")
        else:
            fig.name_outer_axes(
                figure, "probability of collapse, foretold", "share collapsed", height
            )
        fig.freeze(figure)
    return figure


def _draw_frame(ax: Axes) -> None:
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-_STRIP - 0.03, 1.03)
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    ax.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    ax.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, zorder=1)


def _draw_counts(ax: Axes, panel: ReliabilityPanel) -> None:
    """Bars hang below the axis, the longest as long as the strip."""
    edges = np.linspace(0, 1, BINS + 1)
    lengths = panel.count / panel.count.max() * (_STRIP - 0.02)
    ax.bar(
        edges[:-1], -lengths, width=1 / BINS, align="edge", color="#D9DDE2", linewidth=0.4,
        edgecolor="white", bottom=-0.02, zorder=1,
    )  # fmt: skip


def _draw_panel(ax: Axes, panel: ReliabilityPanel) -> None:
    look = looks(["other"])[0]
    full = panel.count > 0
    x, y = panel.mean[full], panel.share[full]
    ax.vlines(x, panel.low[full], panel.high[full], color=look.line, linewidth=1.0, zorder=2)
    ax.plot(
        x, y, color=look.line, linewidth=0.8, alpha=0.5, marker=look.marker, markersize=4.5,
        markerfacecolor=look.fill, markeredgecolor="white", markeredgewidth=0.4, zorder=3,
    )  # fmt: skip
