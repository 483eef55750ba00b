"""Drawing of the numbers of hypotheses, one frame per hypothesis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from repsim.plots.appearance import GREY, LABEL, Size, looks, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.names import number
from repsim.plots.validation.hypotheses import HypothesesData, HypothesisPanel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_hypotheses(data: HypothesesData, *, size: Size = "wide") -> Figure:
    """Draw prepared hypotheses, one below the other.

    Args:
        data: What `prepare_hypotheses` returned.
        size: Width of the figure.

    Raises:
        UsageError: The size is unknown.
    """
    width = width_of(size)
    tall = [0.62 + 0.19 * len(panel.numbers) for panel in data.panels]
    with style():
        figure = fig.new_figure(width, sum(tall), data.title, data.note)
        frames = figure.subplots(len(tall), 1, squeeze=False, height_ratios=tall)[:, 0]
        labelled = min(2.6, width * 0.4)
        for frame, panel in zip(frames, data.panels, strict=True):
            _draw_panel(frame, panel, labelled)
            title = f"{panel.name}: {panel.verdict}"
            if width > 4:
                title = f"{panel.name}: {panel.statement} ({panel.verdict})"
            fig.title_panel(frame, title, width - labelled - 0.3)
        fig.freeze(figure)
    return figure


def _draw_panel(ax: Axes, panel: HypothesisPanel, room: float) -> None:
    look = looks(["other"])[0]
    figure = fig.figure_of(ax)
    ax.axvline(0, color=GREY, linewidth=0.9, zorder=1)
    ax.grid(visible=True, axis="x")
    reach = [0.0]
    for place, evidence in enumerate(panel.numbers):
        known = [v for v in (evidence.low, evidence.high, evidence.value) if np.isfinite(v)]
        reach += known
        ax.plot([evidence.low, evidence.high], [place] * 2, color=look.line, linewidth=1.1)
        ax.plot([evidence.value], [place], "o", color=look.line, markersize=4.2, zorder=3)
        ax.annotate(
            number(evidence.value), (1.0, place), xycoords=("axes fraction", "data"),
            xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5, color=LABEL,
        )  # fmt: skip
    span = max(reach) - min(reach) or 1.0
    ax.set_xlim(min(reach) - 0.04 * span, max(reach) + 0.04 * span)
    ax.locator_params(axis="x", nbins=6 if room > 2 else 4)
    names = [fig.fitted(figure, e.quantity, room, size=7.5, lines=1) for e in panel.numbers]
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.5, -0.5)
