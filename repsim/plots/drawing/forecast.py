"""Drawing of forecasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.plots.appearance import FAINT, GREY, LABEL, Look, Size, looks, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.matrix import add_colour_bar, align_colour_bar, draw_matrix, ink_on
from repsim.plots.forecast import LEAST, ForecastData, ForecastMatrixData, ForecastRow
from repsim.plots.names import number, shortened, wrapped
from repsim.plots.retention import COLLAPSE
from repsim.plots.selection import MeasureFacts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WORST = MeasureFacts(
    "retention", "retention, worst language", "similarity", None, 1.0, 1.0, True, None
)


def draw_forecast(data: ForecastData, *, size: Size = "medium") -> Figure:
    """Draw prepared intervals: a row per merge, a marker per language.

    Raises:
        UsageError: The size is unknown.
    """
    from matplotlib.lines import Line2D

    width = width_of(size)
    found = dict(zip(data.languages, looks(["other"] * len(data.languages)), strict=True))
    key = [
        Line2D([], [], linestyle="", label=name, **_marker(look, hollow=False))
        for name, look in found.items()
    ]
    with style():
        figure = fig.new_figure(width, 0.75 + 0.34 * len(data.rows), data.title, data.note, key=key)
        ax = figure.subplots()
        _draw_frame(ax, data)
        for place, row in enumerate(data.rows):
            _draw_row(ax, row, place, found)
        fig.freeze(figure)
    return figure


def _marker(look: Look, *, hollow: bool) -> dict[str, Any]:
    return {
        "marker": look.marker,
        "markersize": 4.5,
        "color": look.line,
        "markerfacecolor": "white" if hollow or not look.filled else look.fill,
        "markeredgecolor": look.line,
    }


def _draw_frame(ax: Axes, data: ForecastData) -> None:
    points = [point for row in data.rows for point in row.points]
    highest = max(max(point.value, np.nan_to_num(point.high)) for point in points)
    right = max(1.05, highest + 0.05)
    ax.axvspan(LEAST, COLLAPSE, color="#F3E4DC", linewidth=0, zorder=0)
    ax.axvline(COLLAPSE, color=GREY, linewidth=0.9, linestyle=(0, (3.5, 2)), zorder=1)
    for at in (0.0, 1.0):
        ax.axvline(at, color=FAINT, linewidth=0.8, zorder=1)
    ax.set_xlim(LEAST, right)
    ax.set_ylim(len(data.rows) - 0.4, -0.6)
    labels = [wrapped(row.label, 26) for row in data.rows]
    ax.set_yticks(range(len(data.rows)), labels)
    for tick, row in zip(ax.get_yticklabels(), data.rows, strict=True):
        if row.known:
            tick.set_color(GREY)
    figure = fig.figure_of(ax)
    label = "retention (0 unigrams, 1 best parent)"
    ax.set_xlabel(fig.fitted(figure, label, float(figure.get_size_inches()[0]) - 1.8))


def _draw_row(ax: Axes, row: ForecastRow, place: int, found: dict[str, Look]) -> None:
    """Languages of a row stand a little apart, so that their intervals do not cover each other."""
    apart = np.linspace(-0.17, 0.17, len(row.points)) if len(row.points) > 1 else np.zeros(1)
    for point, shift in zip(row.points, apart, strict=True):
        look, at = found[point.language], place + shift
        if np.isfinite(point.low):
            ends = [max(point.low, LEAST), max(point.high, LEAST)]
            ax.plot(ends, [at, at], color=look.line, linewidth=1.1, zorder=2)
        if point.value >= LEAST:
            marker = _marker(look, hollow=row.known)
            ax.plot([point.value], [at], linestyle="", zorder=3, **marker)
        else:
            left = {**_marker(look, hollow=row.known), "marker": "<"}
            ax.plot([LEAST], [at], linestyle="", zorder=3, clip_on=False, **left)


def draw_forecast_matrix(data: ForecastMatrixData, *, size: Size = "medium") -> Figure:
    """Draw a prepared matrix: colour and hundredths are the worst language's retention.

    Raises:
        UsageError: The size is unknown.
    """
    width, count = width_of(size), len(data.models)
    with style():
        side = min(width - 2.2, 0.62 * count + 0.3)
        figure = fig.new_figure(width, side + 1.0, data.title, data.note)
        ax = figure.subplots()
        image = draw_matrix(ax, data.values, data.scale, origin="upper")
        _blank_diagonal(ax, count)
        names = [shortened(name, 18) for name in data.models]
        small: dict[str, Any] = {"fontsize": 7.5 if count <= 16 else 5.5}
        ax.set_xticks(range(count), names, rotation=90, **small)
        ax.set_yticks(range(count), names, **small)
        bar = add_colour_bar(figure, image, [ax], data.scale, _WORST, side)
        bar.set_label(_WORST.label, color=LABEL)
        fig.keep_left(figure, side + 2.2)
        fig.freeze(figure)
        align_colour_bar(figure, bar, [ax])
        _annotate(ax, data)
    return figure


def _blank_diagonal(ax: Axes, count: int) -> None:
    from matplotlib.patches import Rectangle

    for i in range(count):
        ax.add_patch(
            Rectangle((i - 0.5, i - 0.5), 1, 1, facecolor="white", edgecolor="none", zorder=2)
        )


def _annotate(ax: Axes, data: ForecastMatrixData) -> None:
    """Retention in each cell; two strokes mark those that are more likely to collapse."""
    count = len(data.models)
    cell = ax.get_window_extent().width / count * 72 / fig.figure_of(ax).dpi
    fontsize = max(min(7.5, (cell - 2) / 2.6), 3.0)
    ink = ink_on(data.values, data.scale)
    for i, j in zip(*np.nonzero(np.isfinite(data.values)), strict=True):
        text = number(float(data.values[i, j]))
        options = {"ha": "center", "va": "center", "fontsize": fontsize, "color": ink[i, j]}
        ax.text(j, i, text, zorder=4, **options)
        if data.risk[i, j] > COLLAPSE:
            for sign in (-1, 1):
                ends = ([j + 0.24 * sign, j + 0.42 * sign], [i - 0.24 * sign, i - 0.42 * sign])
                ax.plot(*ends, color=ink[i, j], linewidth=0.9, zorder=3)
