"""Drawing of strength by language."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from repsim.plots.appearance import GREY, Look, looks, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.study.axes import marker
from repsim.plots.names import number, wrapped
from repsim.plots.study.strength import StrengthData, StrengthRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_strength(data: StrengthData) -> Figure:
    """Draw prepared strength: a panel per language, a row per kind of model."""
    width = width_of("wide")
    roles = list(dict.fromkeys(row.role for row in data.rows))
    found = dict(zip(roles, looks(roles), strict=True))
    columns = min(len(data.floors), 6)
    rows = -(-len(data.floors) // columns)
    with style():
        height = rows * (0.55 + 0.3 * len(data.rows))
        figure = fig.new_figure(width, height, data.title, data.note)
        axes = fig.panel_axes(figure, len(data.floors), columns)
        for place, (ax, language) in enumerate(zip(axes, data.floors, strict=True)):
            _draw_panel(ax, data, language, found, named=place % columns == 0)
        axes[len(data.floors) // 2].set_xlabel("bits per byte (dashed: unigrams)")
        fig.freeze(figure)
    return figure


def _draw_panel(
    ax: Axes, data: StrengthData, language: str, found: dict[str, Look], *, named: bool
) -> None:
    from matplotlib.ticker import MaxNLocator

    floor = data.floors[language]
    ax.axvline(floor, color=GREY, linewidth=0.9, linestyle=(0, (3.5, 2)), zorder=1)
    ends = [floor]
    for place, row in enumerate(data.rows):
        ax.axhline(place, color="#EEF0F2", linewidth=0.8, zorder=0)
        ends += _draw_row(ax, row, language, place, found[row.role])
    low, high = min(ends), max(ends)
    room = 0.16 * (high - low)
    ax.set_xlim(low - room, high + room)
    ax.axvspan(floor, high + room, color="#F7EBE4", linewidth=0, zorder=0)
    ax.set_ylim(len(data.rows) - 0.35, -0.5)
    labels = [wrapped(row.label, 26) if named else "" for row in data.rows]
    ax.set_yticks(range(len(data.rows)), labels)
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.tick_params(axis="y", length=0)
    ax.set_title(data.codes[language], loc="left")


def _draw_row(ax: Axes, row: StrengthRow, language: str, place: int, look: Look) -> list[float]:
    models = row.models.get(language, ())
    if not models:
        return []
    for model in models:
        if np.isfinite(model.low):
            ax.plot(
                [model.low, model.high], [place, place], color=look.line, linewidth=1.1, zorder=2
            )
        ax.plot([model.bits], [place], linestyle="", zorder=3, **marker(look))
    best = min(model.bits for model in models)
    ax.annotate(
        number(best), (best, place), xytext=(0, -4.5), textcoords="offset points", fontsize=6.5,
        ha="center", va="top", color=look.text,
    )  # fmt: skip
    ends = [end for model in models for end in (model.low, model.high) if np.isfinite(end)]
    return [*ends, *(model.bits for model in models)]
