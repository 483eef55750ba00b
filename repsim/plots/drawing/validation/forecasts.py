"""Drawing of forecasts against outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.plots.appearance import FAINT, GREY, Look, Size, darkened, looks, style
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.validation.layout import panel_grid
from repsim.plots.validation.forecasts import ForecastPanel, ForecastsData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Fill of the quarters in which the forecast of collapse is wrong.
WRONG = "#F3E4DC"
WRONG_TEXT = darkened("#A9795F", 4.5)
#: Room beyond the best parent's retention.
_HIGHEST = 1.26
#: More points than these are stored as pixels in vector files, which stay small and quick to open.
_CLOUD = 500
_REFUSED: dict[str, Any] = {"marker": "x", "markersize": 2.6, "color": GREY, "alpha": 0.6}


def draw_forecasts(data: ForecastsData, *, size: Size = "wide") -> Figure:
    """Draw prepared forecasts, one square frame per split.

    Args:
        data: What `prepare_forecasts` returned.
        size: Width of the figure.

    Raises:
        UsageError: The size is unknown.
    """
    from matplotlib.lines import Line2D

    count = len(data.panels)
    width, columns, rows = panel_grid(count, size)
    found = looks(["other"] * len(data.strata))
    key = [
        Line2D([], [], linestyle="", label=name, **_marker(look))
        for name, look in zip(data.strata, found, strict=True)
    ]
    if any(panel.refused.any() for panel in data.panels):
        key.append(Line2D([], [], linestyle="", label="refused", **_REFUSED))
    with style():
        room = min(width / columns, 3.9)
        height = rows * (room + 0.05)
        figure = fig.new_figure(width, height, data.title, data.note, key=key)
        frames = fig.panel_axes(figure, count, columns, sharex=True, sharey=True)
        for frame, panel in zip(frames, data.panels, strict=True):
            _draw_frame(frame, data.lowest)
            _draw_panel(frame, panel, found, data.lowest)
            _name_panel(frame, panel, room - 0.55)
        fig.keep_left(figure, room * columns)
        if count == 1:
            frames[0].set(xlabel="retention foretold", ylabel="retention found")
        else:
            fig.name_outer_axes(figure, "retention foretold", "retention found", height)
        fig.freeze(figure)
    return figure


def _marker(look: Look) -> dict[str, Any]:
    return {
        "marker": look.marker,
        "markersize": 3.2,
        "markerfacecolor": look.fill if look.filled else "white",
        "markeredgecolor": "white" if look.filled else look.line,
        "markeredgewidth": 0.3,
    }


def _draw_frame(ax: Axes, lowest: float) -> None:
    low = lowest - 0.06
    ax.set_xlim(low, _HIGHEST)
    ax.set_ylim(low, _HIGHEST)
    ax.set_aspect("equal")
    ax.tick_params(labelbottom=True, labelleft=True)
    for x, y in ((low, COLLAPSE), (COLLAPSE, low)):
        x1, y1 = (COLLAPSE, _HIGHEST) if y == COLLAPSE else (_HIGHEST, COLLAPSE)
        ax.fill([x, x1, x1, x], [y, y, y1, y1], color=WRONG, linewidth=0, zorder=0)
    ax.plot([low, _HIGHEST], [low, _HIGHEST], color=GREY, linewidth=0.9, zorder=1)
    for at in (0.0, 1.0):
        ax.axhline(at, color=FAINT, linewidth=0.6, zorder=0.5)


def _draw_panel(ax: Axes, panel: ForecastPanel, found: list[Look], lowest: float) -> None:
    from matplotlib.collections import LineCollection

    x = np.maximum(panel.predicted, lowest)
    y = np.maximum(panel.observed, lowest)
    low, high = np.maximum(panel.low, lowest), np.maximum(panel.high, lowest)
    bars = [[(low[i], y[i]), (high[i], y[i])] for i in panel.shown if np.isfinite(low[i])]
    colours = [found[panel.stratum[i]].line for i in panel.shown if np.isfinite(low[i])]
    ax.add_collection(
        LineCollection(bars, colors=colours, linewidths=0.6, alpha=0.28, zorder=2), autolim=False
    )
    cloud: dict[str, Any] = {"linestyle": "", "rasterized": len(x) > _CLOUD}
    for place, look in enumerate(found):
        mine = (panel.stratum == place) & ~panel.refused
        if mine.any():
            ax.plot(x[mine], y[mine], alpha=0.75, zorder=3, **cloud, **_marker(look))
    ax.plot(x[panel.refused], y[panel.refused], zorder=2.5, **cloud, **_REFUSED)


def _name_panel(ax: Axes, panel: ForecastPanel, room: float) -> None:
    """Title, its numbers in grey beneath, and what the shaded quarters mean."""
    fig.title_panel(ax, panel.title, room, y=1.085 if panel.note else None)
    words: dict[str, Any] = {"transform": ax.transAxes, "fontsize": 7, "linespacing": 1.2}
    if panel.note:
        note = fig.fitted(fig.figure_of(ax), panel.note, room, size=7, lines=1)
        ax.text(0, 1.02, note, color=GREY, va="bottom", **words).set_in_layout(False)
    box = {"facecolor": WRONG, "alpha": 0.8, "edgecolor": "none", "pad": 1.0}
    words |= {"color": WRONG_TEXT, "zorder": 4, "bbox": box}
    ax.text(0.03, 0.97, "false alarm", va="top", **words)
    ax.text(0.97, 0.04, "collapse\nmissed", ha="right", va="bottom", **words)
