"""Drawing of collapse by method, and by combination of languages."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.plots.appearance import INK, LABEL, style, width_of
from repsim.plots.colours import ColourScale
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.matrix import align_colour_bar, draw_matrix, ink_on
from repsim.plots.names import number, wrapped
from repsim.plots.study.collapse import (
    CombinationPanel,
    CombinationsData,
    MethodsData,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

#: Red collapses, blue lives, white is the threshold.
SCALE = ColourScale("RdBu", COLLAPSE - 0.75, COLLAPSE + 0.75, "min", "")
#: Names of settings short enough for the head of a column.
HEADS = {
    "independent": "independent\nweights",
    "same-init": "same initial\nweights",
    "early-forks": "forks,\n≤ 10 %",
    "late-forks": "forks,\n> 10 %",
    "doses": "fine-tuning\ndoses",
}


def _short_number(value: float) -> str:
    """Two digits: what lies far below zero needs no decimals."""
    return number(value, 2 if value > -1 else 1 if value > -10 else 0)


def draw_methods(data: MethodsData) -> Figure:
    """Draw prepared collapse by method: a row per recipe, a column per origin and k."""
    width = width_of("wide")
    rows, columns = data.medians.shape
    with style():
        figure = fig.new_figure(width, 0.95 + 0.33 * rows, data.title, data.note)
        ax = figure.subplots()
        image = draw_matrix(ax, data.medians, SCALE, origin="upper")
        ax.set_aspect("auto")
        _write_cells(ax, data)
        ax.set_yticks(range(rows), [wrapped(name, 24) for name in data.recipes])
        ax.set_xticks(range(columns), [f"k = {k}" for _, k in data.columns])
        ax.xaxis.tick_top()
        _write_heads(ax, data)
        naive = sum("," not in name for name in data.recipes)
        if 0 < naive < rows:
            ax.axhline(naive - 0.5, color="white", linewidth=3)
        _bar(figure, image, [ax])
        fig.freeze(figure)
    return figure


def _write_cells(ax: Axes, data: MethodsData) -> None:
    ink = ink_on(data.medians, SCALE)
    for i, j in itertools.product(*map(range, data.medians.shape)):
        if np.isfinite(data.medians[i, j]):
            options: dict[str, Any] = {"ha": "center", "color": ink[i, j]}
            text = _short_number(data.medians[i, j])
            ax.text(j, i - 0.02, text, va="bottom", fontsize=8, **options)
            share = f"{100 * data.collapsed[i, j]:.0f} %"
            ax.text(j, i + 0.04, share, va="top", fontsize=5.8, **options)


def _write_heads(ax: Axes, data: MethodsData) -> None:
    """Name each setting once, over its columns."""
    from matplotlib.transforms import blended_transform_factory

    at_top = blended_transform_factory(ax.transData, ax.transAxes)
    for setting, group in itertools.groupby(enumerate(data.columns), key=lambda item: item[1][0]):
        places = [place for place, _ in group]
        ax.annotate(
            HEADS[setting], ((places[0] + places[-1]) / 2, 1.0), xycoords=at_top, xytext=(0, 15),
            textcoords="offset points", ha="center", va="bottom", fontsize=7.5, fontweight="bold",
            color=INK, annotation_clip=False,
        )  # fmt: skip
        if places[-1] < len(data.columns) - 1:
            ax.axvline(places[-1] + 0.5, color="white", linewidth=4)


def _bar(figure: Figure, image: Any, axes: list[Axes]) -> Colorbar:
    ticks = [-0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25]
    bar = figure.colorbar(image, ax=axes, extend="min", pad=0.015, aspect=24, ticks=ticks)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    bar.ax.set_yticks(ticks, [number(tick) for tick in ticks])
    bar.set_label("retention", color=LABEL)
    return bar


def draw_combinations(data: CombinationsData) -> Figure:
    """Draw prepared pairs of languages: a matrix per origin of the parents."""
    width = width_of("wide")
    columns = min(len(data.panels), 4)
    rows = -(-len(data.panels) // columns)
    side = min((width - 1.1) / columns, 2.0)
    with style():
        figure = fig.new_figure(width, rows * (side + 0.25), data.title, data.note)
        fig.keep_left(figure, columns * side + 1.1)
        axes = fig.panel_axes(figure, len(data.panels), columns)
        image = None
        for ax, panel in zip(axes, data.panels, strict=True):
            image = _draw_panel(ax, panel, data, side)
        bar = _bar(figure, image, axes)
        fig.freeze(figure)
        align_colour_bar(figure, bar, axes)
    return figure


def _draw_panel(ax: Axes, panel: CombinationPanel, data: CombinationsData, side: float) -> Any:
    below = np.tril(np.ones(panel.plain.shape, dtype=bool), -1)
    values = np.where(below, panel.plain, panel.best)
    image = draw_matrix(ax, values, SCALE, origin="upper")
    ink = ink_on(values, SCALE)
    count = len(data.languages)
    for i, j in itertools.product(range(count), repeat=2):
        if np.isfinite(values[i, j]):
            text = number(values[i, j], 2 if values[i, j] >= 0 else 1)
            ax.text(j, i, text, ha="center", va="center", fontsize=6.0, color=ink[i, j])
    ax.set_xticks(range(count), data.languages)
    ax.set_yticks(range(count), data.languages)
    fig.title_panel(ax, panel.title, side - 0.2)
    return image
