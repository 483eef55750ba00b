"""Rows with a name on the left, and in them points with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.plots.drawing.figure import figure_of, fitted
from repsim.plots.drawing.hover import say
from repsim.plots.names import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def name_rows(
    ax: Axes, names: Sequence[str], room: float | None = None,
    *, size: float | None = None, lines: int = 2, above: float = 0.5, below: float = 0.5,
) -> None:  # fmt: skip
    """A row per name, the first on top; names are broken to `room` inches where it is stated."""
    if room is not None:
        figure = figure_of(ax)
        names = [fitted(figure, name, room, size=size or 7.5, lines=lines) for name in names]
    sized: dict[str, Any] = {} if size is None else {"fontsize": size}
    ax.set_yticks(range(len(names)), names, linespacing=0.95, **sized)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 1 + below, -above)


def draw_point(
    ax: Axes, y: float, value: float, ends: tuple[float, float], marker: Mapping[str, Any],
    *, width: float = 1.1, colour: str | None = None,
) -> None:  # fmt: skip
    """A marker at height `y`, over the line of its interval where it has one."""
    if np.isfinite(ends).all():
        line = colour or marker.get("color") or marker["markeredgecolor"]
        ax.plot(ends, [y, y], color=line, linewidth=width, zorder=2)
    options: dict[str, Any] = {"linestyle": "", "zorder": 3, **marker}
    (line,) = ax.plot([value], [y], **options)
    within = f" [{number(ends[0])}, {number(ends[1])}]" if np.isfinite(ends).all() else ""
    say(line, [number(value, 3) + within])
