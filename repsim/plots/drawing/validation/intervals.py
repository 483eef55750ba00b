"""Drawing of coverage, width and refusals: a line per split, a frame per quantity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.plots.appearance import GREY, Look, Size, line_marker, looks, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.validation.intervals import GOAL, PROMISED, IntervalPoint, IntervalsData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BAND = "#DCEBE2"


def draw_intervals(data: IntervalsData, *, size: Size = "wide") -> Figure:
    """Draw prepared coverage, width and refusals.

    Args:
        data: What `prepare_intervals` returned.
        size: Width of the figure.

    Raises:
        UsageError: The size is unknown.
    """
    from matplotlib.lines import Line2D

    width = width_of(size)
    found = looks(["other"] * len(data.strata))
    key = [
        Line2D([], [], linestyle="", label=name, **line_marker(look))
        for name, look in zip(data.strata, found, strict=True)
    ]
    with style():
        per_split = max(0.3, 0.13 * len(data.strata) + 0.1)
        figure = fig.new_figure(
            width, 0.7 + per_split * len(data.splits), data.title, data.note, key=key
        )
        frames = figure.subplots(1, 3, sharey=True, width_ratios=(1.25, 1, 1))
        _draw_coverage_frame(frames[0])
        for split_place, points in enumerate(data.splits.values()):
            for point in points:
                height = split_place + _offset(point.stratum, len(data.strata))
                _draw_point(frames, point, height, found[point.stratum])
        _finish(frames, data)
        fig.freeze(figure)
    return figure


def _offset(stratum: int, strata: int) -> float:
    return 0.0 if strata == 1 else (stratum / (strata - 1) - 0.5) * 0.5


def _draw_coverage_frame(ax: Axes) -> None:
    ax.axvspan(*GOAL, color=_BAND, linewidth=0, zorder=0)
    ax.axvline(PROMISED, color=GREY, linewidth=0.9, linestyle=(0, (3.5, 2)), zorder=1)


def _draw_point(frames: Any, point: IntervalPoint, height: float, look: Look) -> None:
    marker = line_marker(look)
    if np.isfinite(point.low) and np.isfinite(point.high):
        frames[0].plot([point.low, point.high], [height] * 2, color=look.line, linewidth=1.1)
    values = (point.coverage, point.width, point.refused)
    for frame, value in zip(frames, values, strict=True):
        frame.plot([value], [height], linestyle="", zorder=3, **marker)


def _finish(frames: Any, data: IntervalsData) -> None:
    points = [point for found in data.splits.values() for point in found]
    least = min([0.75, *(v for p in points for v in (p.coverage, p.low) if v == v)])
    frames[0].set_xlim(max(0.0, least) - 0.03, 1.02)
    for frame, quantity in zip(frames[1:], ("width", "refused"), strict=True):
        most = max([0.0, *(v for p in points if (v := getattr(p, quantity)) == v)])
        frame.set_xlim(0 - 0.03 * (most or 1), (most or 1) * 1.1)
    figure = fig.figure_of(frames[0])
    labels = [fig.fitted(figure, name, 1.5, size=7.5) for name in data.splits]
    frames[0].set_yticks(range(len(labels)), labels)
    frames[0].set_ylim(len(labels) - 0.5, -0.5)
    room = (float(figure.get_size_inches()[0]) - 1.7) / 3.3
    names = ("share inside", "mean width", "share refused")
    for frame, name in zip(frames, names, strict=True):
        frame.grid(visible=True, axis="x")
        frame.tick_params(axis="y", length=0)
        frame.locator_params(axis="x", nbins=4 if room > 1.2 else 2)
        for edge in range(1, len(labels)):
            frame.axhline(edge - 0.5, color="#E6E9ED", linewidth=0.8, zorder=0)
        frame.set_xlabel(fig.fitted(figure, name, room))
