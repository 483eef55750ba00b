"""Drawing of loss along paths between parents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from repsim.plots.appearance import FAINT, LABEL, Look, Size, looks, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.names import number
from repsim.plots.study.outcomes import SETTINGS
from repsim.plots.study.paths import PATHS, PathPanel, PathsData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Up to this height the axis is straight, above it logarithmic: barriers span three decades.
STRAIGHT = 0.1


def draw_paths(data: PathsData, *, size: Size = "wide") -> Figure:
    """Draw prepared paths: a panel per setting.

    Raises:
        UsageError: The size is unknown.
    """
    from matplotlib.lines import Line2D

    width = width_of(size)
    columns = min(len(data.panels), 4 if size == "wide" else 2)
    rows = -(-len(data.panels) // columns)
    found = dict(zip(PATHS, looks([role for _, role in PATHS.values()]), strict=True))
    present = [
        name
        for name in PATHS
        if any(group.alignment == name for panel in data.panels for group in panel.groups)
    ]
    key = [Line2D([], [], color=found[name].line, linewidth=1.8, label=PATHS[name][0])
           for name in present]  # fmt: skip
    with style():
        height = 1.9 * rows
        figure = fig.new_figure(width, height + 0.2, data.title, data.note, key=key)
        axes = fig.panel_axes(figure, len(data.panels), columns, sharey=True, sharex=True)
        room = (width - 0.6) / columns - 0.2
        _height_axis(axes[0], data)
        for place, (ax, panel) in enumerate(zip(axes, data.panels, strict=True)):
            _draw_panel(ax, panel, found)
            fig.title_panel(ax, SETTINGS[panel.setting], room)
            ax.tick_params(labelbottom=place + columns >= len(data.panels))
        fig.name_outer_axes(figure, "share of the second parent", "bits per byte over the chord",
                            height)  # fmt: skip
        fig.freeze(figure)
    return figure


def _height_axis(ax: Axes, data: PathsData) -> None:
    heights = np.concatenate([group.above.ravel() for panel in data.panels
                              for group in panel.groups])  # fmt: skip
    ax.set_yscale("symlog", linthresh=STRAIGHT, linscale=0.5)
    ticks = [-1.0, -0.1, 0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
    low, high = min(-0.02, float(heights.min()) * 1.2), float(heights.max())
    ax.set_ylim(low, high * 6)  # room for the numbers
    shown = [tick for tick in ticks if low <= tick <= high * 1.5]
    ax.set_yticks(shown, [f"{tick:g}".replace("-", "−") for tick in shown])
    ax.set_yticks([], minor=True)


def _draw_panel(ax: Axes, panel: PathPanel, found: dict[str, Look]) -> None:
    ax.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
    for place, group in enumerate(panel.groups):
        look = found[group.alignment]
        ax.plot(group.t, group.above.T, color=look.line, linewidth=0.4, alpha=0.3, zorder=2)
        ax.plot(group.t, np.median(group.above, axis=0), color=look.line, linewidth=1.8, zorder=3)
        ax.text(0.97, 0.965 - 0.105 * place, number(group.barrier.value),
                transform=ax.transAxes, ha="right", va="top", fontsize=7.5,
                color=look.text)  # fmt: skip
    ax.text(0.03, 0.965, "barrier", transform=ax.transAxes, ha="left", va="top", fontsize=7.5,
            color=LABEL)  # fmt: skip
    ax.set_xlim(-0.03, 1.03)
    ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])
