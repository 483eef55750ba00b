"""Drawing of loss along the merge path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.plots.appearance import GREY, LABEL, Look, Size, looks, style, width_of
from repsim.plots.barrier import BarrierData, BarrierPanel, PathCurve
from repsim.plots.drawing import figure as fig
from repsim.plots.names import number, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = (0, (3.5, 2))
#: Barriers below this (bits per byte) are said and have no arrow: it would have no length.
_LEAST_ARROW = 0.05


def draw_barrier(data: BarrierData, *, size: Size = "wide") -> Figure:
    """Draw prepared paths, one frame per language.

    Raises:
        UsageError: The size is unknown.
    """
    from matplotlib.lines import Line2D

    width = width_of(size)
    count = len(data.panels)
    columns = min(count, 1 if size == "single" else 2 if size == "medium" else 3)
    rows = -(-count // columns)
    roles = {curve.label: curve.role for panel in data.panels for curve in panel.curves}
    found = dict(zip(roles, looks(list(roles.values())), strict=True))
    key = [Line2D([], [], label=label, **_line(look)) for label, look in found.items()]
    key.append(Line2D([], [], color=GREY, linewidth=1.0, linestyle=_DASHES, label="chord"))
    with style():
        room = width / columns
        height = rows * min(max(room * 0.85, 2.3), 3.2)
        figure = fig.new_figure(width, height, data.title, data.note, key=key)
        frames = fig.panel_axes(figure, count, columns, sharex=True)
        for frame, panel in zip(frames, data.panels, strict=True):
            _draw_panel(frame, panel, found)
            _name_ends(frame, data.ends, narrow=columns > 1)
            fig.title_panel(frame, panel.title, room)
        fig.name_outer_axes(figure, "interpolation t", "held-out bits per byte", height)
        fig.freeze(figure)
    return figure


def _line(look: Look) -> dict[str, Any]:
    return {
        "color": look.line,
        "marker": look.marker,
        "markersize": 3.2,
        "markerfacecolor": look.fill if look.filled else "white",
        "markeredgecolor": look.line,
        "linewidth": 1.4,
    }


def _draw_panel(ax: Axes, panel: BarrierPanel, found: dict[str, Look]) -> None:
    ax.grid(visible=True, axis="y")
    for curve in panel.curves:
        look = found[curve.label]
        if np.isfinite(curve.low).any():
            ax.fill_between(
                curve.t, curve.low, curve.high, color=look.fill, alpha=0.18, linewidth=0
            )
        ax.plot(curve.t, curve.value, label=curve.label, zorder=3, **_line(look))
    naive = panel.curves[0]
    ends = [float(naive.value[0]), float(naive.value[-1])]
    ax.plot([0, 1], ends, color=GREY, linewidth=1.0, linestyle=_DASHES, zorder=2, label="chord")
    _leave_room(ax, panel)
    _mark_barrier(ax, max(panel.curves, key=lambda curve: curve.barrier), panel, found)


def _leave_room(ax: Axes, panel: BarrierPanel) -> None:
    """Room above for the number of each path's barrier."""
    values = np.concatenate([np.r_[c.value, c.low, c.high] for c in panel.curves])
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    span = high - low or max(abs(high), 1.0) * 0.1
    ax.set_ylim(low - 0.06 * span, high + (0.16 + 0.1 * len(panel.curves)) * span)
    ax.set_xlim(-0.04, 1.04)


def _mark_barrier(
    ax: Axes, highest: PathCurve, panel: BarrierPanel, found: dict[str, Look]
) -> None:
    """A double arrow from the chord to the highest path, and all numbers with their unit."""
    if highest.barrier >= _LEAST_ARROW:
        top = highest.chord(highest.at) + highest.barrier
        ax.annotate(
            "",
            xy=(highest.at, top),
            xytext=(highest.at, highest.chord(highest.at)),
            arrowprops={
                "arrowstyle": "<->", "color": GREY, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0,
                "mutation_scale": 9,
            },
            zorder=4,
        )  # fmt: skip
    for i, curve in enumerate(panel.curves):
        ax.text(
            0.5,
            0.985 - 0.085 * i,
            f"barrier {number(curve.barrier)} bits/byte",
            transform=ax.transAxes,
            ha="center",
            va="top",
            fontsize=7.5,
            color=found[curve.label].text if len(panel.curves) > 1 else LABEL,
        )


def _name_ends(ax: Axes, ends: tuple[str, str], *, narrow: bool) -> None:
    room = 10 if narrow else 16
    names = [wrapped(name, room) for name in ends]
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], [f"A\n{names[0]}", "¼", "½", "¾", f"B\n{names[1]}"])
    ax.tick_params(labelbottom=True)
