"""Drawing of predictors side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repsim.plots.appearance import GREY, Look, Size, line_marker, looks, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.validation.candidates import Candidate, CandidatesData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_candidates(data: CandidatesData, *, size: Size = "wide") -> Figure:
    """Draw prepared predictors, a line each.

    Args:
        data: What `prepare_candidates` returned.
        size: Width of the figure.

    Raises:
        UsageError: The size is unknown.
    """
    from matplotlib.lines import Line2D

    width = width_of(size)
    found = dict(zip(data.kinds, looks(["other"] * len(data.kinds)), strict=True))
    key = [
        Line2D([], [], linestyle="", label=kind, **line_marker(look))
        for kind, look in found.items()
    ]
    with style():
        height = 0.65 + 0.22 * len(data.candidates)
        figure = fig.new_figure(width, height, data.title, data.note, key=key)
        ax = figure.subplots()
        ax.grid(visible=True, axis="x")
        for place, candidate in enumerate(data.candidates):
            _draw_line(ax, candidate, place, found[candidate.kind])
        _name_lines(ax, data, min(2.2, width * 0.4))
        ax.set_xlabel(fig.fitted(figure, data.axis, width * 0.55))
        fig.freeze(figure)
    return figure


def _draw_line(ax: Axes, candidate: Candidate, place: int, look: Look) -> None:
    if candidate.chosen:
        ax.axvline(candidate.value, color=GREY, linewidth=0.9, linestyle=(0, (3.5, 2)), zorder=1)
    ax.plot([candidate.low, candidate.high], [place] * 2, color=look.line, linewidth=1.1, zorder=2)
    ax.plot([candidate.value], [place], linestyle="", zorder=3, **line_marker(look))


def _name_lines(ax: Axes, data: CandidatesData, room: float) -> None:
    figure = fig.figure_of(ax)
    names = [fig.fitted(figure, candidate.name, room, size=7.5) for candidate in data.candidates]
    ax.set_yticks(range(len(names)), names)
    for label, candidate in zip(ax.get_yticklabels(), data.candidates, strict=True):
        label.set_fontweight("bold" if candidate.chosen else "normal")
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.5, -0.5)
