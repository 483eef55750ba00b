"""Drawing of controls: what was foretold beside what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.plots.appearance import (
    ACCENT,
    FAINT,
    GREY,
    INK,
    ROLES,
    Size,
    darkened,
    style,
    width_of,
)
from repsim.plots.drawing import figure as fig
from repsim.plots.names import number
from repsim.plots.validation.controls import ControlLine, ControlMerge, ControlsData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Judgement -> colour of line and word.
COLOURS = {"right": darkened(ROLES["merged"][0], 4.5), "wrong": darkened(ACCENT, 4.5),
           "refused": GREY}  # fmt: skip
#: Values below this are drawn there.
_LOWEST = -1.0


def draw_controls(data: ControlsData, *, size: Size = "wide") -> Figure:
    """Draw prepared controls, a line each.

    Args:
        data: What `prepare_controls` returned.
        size: Width of the figure.

    Raises:
        UsageError: The size is unknown.
    """
    from matplotlib.lines import Line2D

    width = width_of(size)
    key = [
        Line2D([], [], linestyle="", label="foretold", **_foretold(INK)),
        Line2D([], [], linestyle="", label="found", **_found(INK)),
    ]
    with style():
        tall = [max(1.0, 0.5 * len(line.merges)) for line in data.lines]
        height = 0.6 + 0.22 * sum(tall)
        figure = fig.new_figure(width, height, data.title, data.note, key=key)
        ax = figure.subplots()
        merges = [merge for line in data.lines for merge in line.merges]
        ends = [v for m in merges for v in (m.predicted, m.low, m.observed)]
        least = min([0.0, *(max(v, _LOWEST) for v in ends if v == v)]) - 0.06
        ax.axvspan(least, COLLAPSE, color="#F3E4DC", linewidth=0, zorder=0)
        for at in (0.0, 1.0):
            ax.axvline(at, color=FAINT, linewidth=0.8, zorder=1)
        ax.set_xlim(least, 1.26)
        tops = np.concatenate([[0.0], np.cumsum(tall)])
        ax.set_ylim(float(tops[-1]), 0.0)
        for line, top, room in zip(data.lines, tops, tall, strict=False):
            _draw_line(ax, line, float(top), room)
        names = [
            fig.fitted(figure, line.name, min(2.2, width * 0.4), size=7.5) for line in data.lines
        ]
        ax.set_yticks((tops[:-1] + tops[1:]) / 2, names)
        ax.tick_params(axis="y", length=0)
        wanted = (-1.0, 0.0, 0.5, 1.0) if width < 4 else (-1.0, -0.5, 0.0, 0.5, 1.0)
        ticks = [at for at in wanted if at >= least]
        ax.set_xticks(ticks, [number(at, 1) for at in ticks])
        ax.set_xlabel(fig.fitted(figure, "retention of the worst language", width * 0.45))
        fig.freeze(figure)
    return figure


def _foretold(colour: str) -> dict[str, Any]:
    return {"marker": "o", "markersize": 4, "color": colour, "markerfacecolor": "white"}


def _found(colour: str) -> dict[str, Any]:
    return {"marker": "D", "markersize": 3.4, "color": colour, "markeredgecolor": "white",
            "markeredgewidth": 0.4}  # fmt: skip


def _draw_line(ax: Axes, line: ControlLine, top: float, room: float) -> None:
    """Merges of one control one below the other, and their judgements at the end."""
    if top:
        ax.axhline(top, color="#E6E9ED", linewidth=0.8, zorder=1)
    step = room / len(line.merges)
    for place, merge in enumerate(line.merges):
        _draw_merge(ax, merge, top + (place + 0.5) * step)
    worst = next(j for j in ("wrong", "refused", "right") if line.count(j))
    ax.annotate(
        line.words, (1.0, top + room / 2), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", va="center", fontsize=7.5, color=COLOURS[worst],
    )  # fmt: skip


def _draw_merge(ax: Axes, merge: ControlMerge, at: float) -> None:
    colour = COLOURS[merge.judgement]
    predicted, low, high, observed = (
        max(v, _LOWEST) if v == v else np.nan
        for v in (merge.predicted, merge.low, merge.high, merge.observed)
    )
    ax.plot([low, high], [at, at], color=colour, linewidth=1.0, alpha=0.6, zorder=2)
    ax.plot([predicted], [at], linestyle="", zorder=3, **_foretold(colour))
    ax.plot([observed], [at], linestyle="", zorder=3.5, **_found(colour))
