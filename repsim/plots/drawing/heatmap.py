"""Drawing of heatmap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.plots.appearance import Size, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.matrix import add_colour_bar, align_colour_bar, draw_matrix, ink_on
from repsim.plots.heatmap import HeatmapData, HeatmapPanel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_heatmap(data: HeatmapData, *, ax: Axes | None = None, size: Size = "wide") -> Figure:
    """Draw prepared matrices, into an axes or a figure of their own.

    Raises:
        UsageError: `ax` was given for several panels, or the size is unknown.
    """
    width = width_of(size)
    fig.only_one_panel(ax, len(data.panels))
    with style():
        if ax is not None:
            image = _draw_panel(ax, data, data.panels[0], small=False)
            figure = fig.figure_of(ax)
            height = ax.get_window_extent().height / figure.dpi
            _name_sides(ax, data.panels[0], height=height, size=8.5)
            ax.set_title(data.title, loc="left")
            add_colour_bar(figure, image, [ax], data.scale, data.facts, height)
            return figure
        columns, height = _arrangement(data, size)
        figure = fig.new_figure(width, height, data.title, data.note)
        axes = fig.panel_axes(figure, len(data.panels), columns)
        small = len(axes) > 1
        for frame, panel in zip(axes, data.panels, strict=True):
            image = _draw_panel(frame, data, panel, small=small)
            fig.title_panel(frame, panel.title, (width - 1.15) / columns - 0.2)
        _label_axes(figure, data, axes, columns, height)
        bar = add_colour_bar(figure, image, axes, data.scale, data.facts, height)
        if not small:
            tall, wide = data.panels[0].values.shape
            fig.keep_left(figure, (height - 0.55) * wide / tall + 1.35)
        fig.freeze(figure)
        align_colour_bar(figure, bar, axes)
    return figure


def _arrangement(data: HeatmapData, size: Size) -> tuple[int, float]:
    """Columns, and the height of all panels in inches, from the shape of the matrices."""
    room = width_of(size) - 1.15
    count = len(data.panels)
    shape = max(panel.values.shape[0] / panel.values.shape[1] for panel in data.panels)
    if count == 1:
        return 1, min((room - 0.2) * shape, 3.6) + 0.55
    named = len(_sides(data)) > 1
    most = {"single": 2, "medium": 3, "wide": 4}[size] + (count > 12)
    columns = math.ceil(count / math.ceil(count / most))
    if shape <= 0.75 and size == "wide":
        columns = min(columns, 3) if count <= 12 else columns
    around = 0.6 if named else 0.12
    while columns > 1 and (room / columns - around) < (0.95 if named else 0.6):
        columns -= 1
    body = (room / columns - around) * shape
    return columns, math.ceil(count / columns) * (body + (0.62 if named else 0.3)) + 0.45


def _sides(data: HeatmapData) -> set[tuple[str, str]]:
    return {(panel.label_a, panel.label_b) for panel in data.panels}


def _draw_panel(ax: Axes, data: HeatmapData, panel: HeatmapPanel, *, small: bool) -> Any:
    image = draw_matrix(ax, panel.values, data.scale)
    ink = ink_on(panel.values, data.scale)
    rows = np.flatnonzero(panel.best >= 0)
    columns = panel.best[rows]
    side = 72 * (1.6 if small else 3.0) / max(panel.values.shape)  # of a cell, points, roughly
    ax.scatter(
        columns, rows, s=min(0.42 * side, 5.5) ** 2, facecolors="none", label="best",
        edgecolors=list(ink[rows, columns]), linewidths=min(0.09 * side, 1.1), zorder=3,
    )  # fmt: skip
    i, j = np.nonzero(panel.at_null)
    if i.size:
        ax.scatter(
            j, i, s=min(0.3 * side, 3.5) ** 2, marker="x", c=list(ink[i, j]), alpha=0.6,
            linewidths=min(0.06 * side, 0.7), zorder=2, label="not beyond the null",
        )  # fmt: skip
    _layer_ticks(ax.xaxis, panel.layers_b, most=4 if small else 7)
    _layer_ticks(ax.yaxis, panel.layers_a, most=5 if small else 8)
    return image


def _layer_ticks(axis: Any, layers: Sequence[int], most: int) -> None:
    """Ticks at round layer numbers; the embedding is called by its name."""
    step = next(s for s in (1, 2, 3, 4, 6, 8, 12, 16, 24, 48, 1000) if len(layers) / s <= most)
    shown = [place for place, layer in enumerate(layers) if layer % step == 0]
    axis.set_ticks(shown, [str(layers[place]) if layers[place] else "emb" for place in shown])


def _name_sides(ax: Axes, panel: HeatmapPanel, *, height: float, size: float) -> None:
    """Name rows and columns of a matrix that is about `height` inches high."""
    figure = fig.figure_of(ax)
    wide = height * panel.values.shape[1] / panel.values.shape[0]
    names = [
        fig.fitted(figure, f"layer of {label}", room, size=size)
        for label, room in ((panel.label_b, wide), (panel.label_a, height))
    ]
    ax.set_xlabel(names[0], fontsize=size)
    ax.set_ylabel(names[1], fontsize=size)


def _label_axes(
    figure: Figure, data: HeatmapData, axes: Sequence[Axes], columns: int, height: float
) -> None:
    """Name rows and columns once if all panels share them, else at each panel."""
    sides = _sides(data)
    if len(axes) == 1:
        _name_sides(axes[0], data.panels[0], height=height - 0.4, size=8.5)
    elif len(sides) > 1:
        each = 0.8 * (height / math.ceil(len(axes) / columns) - 0.62)
        for ax, panel in zip(axes, data.panels, strict=True):
            _name_sides(ax, panel, height=each, size=7.0)
    else:
        label_a, label_b = sides.pop()
        fig.name_outer_axes(figure, f"layer of {label_b}", f"layer of {label_a}", height)
        for place, ax in enumerate(axes):
            ax.tick_params(labelleft=place % columns == 0, labelbottom=place + columns >= len(axes))
