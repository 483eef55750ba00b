"""Drawing of lift over baselines: a line per baseline, a frame per split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.plots.appearance import ACCENT, GREY, ROLES, Size, darkened, style
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.validation.layout import panel_grid
from repsim.plots.validation.lift import LiftData, LiftPanel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches for names of baselines, which take two lines, and for one baseline.
_LABELS, _LINE = 2.0, 0.235
#: Outcome -> colour, marker, filled.
LOOKS: dict[str, tuple[str, str, bool]] = {
    "better": (ROLES["merged"][0], "o", True),
    "not told apart": (GREY, "o", False),
    "worse": (darkened(ACCENT, 3.0), "v", True),
    "no interval": (GREY, "x", True),
}


def draw_lift(data: LiftData, *, size: Size = "wide") -> Figure:
    """Draw prepared lift.

    Args:
        data: What `prepare_lift` returned.
        size: Width of the figure.

    Raises:
        UsageError: The size is unknown.
    """
    from matplotlib.lines import Line2D

    count = len(data.panels)
    width, columns, rows = panel_grid(count, size)
    present = {point.outcome for panel in data.panels for point in panel.points}
    key = [
        Line2D([], [], linestyle="", label=f"predictor {name}" if i != 3 else name, **marker(name))
        for i, name in enumerate(LOOKS)
        if name in present
    ]
    with style():
        labelled = min(_LABELS, 0.33 * width)
        height = rows * (0.65 + _LINE * len(data.baselines))
        figure = fig.new_figure(width, height, data.title, data.note, key=key)
        frames = fig.panel_axes(figure, count, columns, sharey=True, sharex=True)
        for frame, panel in zip(frames, data.panels, strict=True):
            _draw_panel(frame, panel, data, labelled)
            fig.title_panel(frame, panel.title, (width - labelled - 0.1) / columns - 0.1)
        fig.name_outer_axes(figure, data.axis, "", height)
        fig.freeze(figure)
    return figure


def marker(outcome: str) -> dict[str, Any]:
    """Marker of an outcome, as options of a line."""
    colour, shape, filled = LOOKS[outcome]
    return {
        "marker": shape,
        "markersize": 4.2,
        "color": colour,
        "markeredgecolor": colour,
        "markerfacecolor": colour if filled else "white",
    }


def _draw_panel(ax: Axes, panel: LiftPanel, data: LiftData, labelled: float) -> None:
    ax.axvline(0, color=GREY, linewidth=0.9, zorder=1)
    ax.grid(visible=True, axis="y")
    for place, point in enumerate(panel.points):
        look = marker(point.outcome)
        if np.isfinite(point.low):
            ax.plot([point.low, point.high], [place, place], color=look["color"], linewidth=1.1)
        ax.plot([point.value], [place], linestyle="", zorder=3, **look)
    ax.set_ylim(len(data.baselines) - 0.5, -0.5)
    figure = fig.figure_of(ax)
    ax.set_yticks(
        range(len(data.baselines)),
        [fig.fitted(figure, name, labelled, size=7) for name in data.baselines],
        linespacing=0.95,
    )
    ax.tick_params(axis="y", length=0)
    ax.tick_params(labelbottom=True)
