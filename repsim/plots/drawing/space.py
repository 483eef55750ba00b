"""Drawing of space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.plots.appearance import INK, Size, looks, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.labels import place_beside
from repsim.plots.names import shortened
from repsim.plots.space import SpaceData, SpacePanel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_space(data: SpaceData, *, ax: Axes | None = None, size: Size = "wide") -> Figure:
    """Draw prepared planes, into an axes or a figure of their own.

    Raises:
        UsageError: `ax` was given for several panels, or the size is unknown.
    """
    width = width_of(size)
    fig.only_one_panel(ax, len(data.panels))
    with style():
        if ax is not None:
            _draw_panel(ax, data, data.panels[0])
            ax.set_title(data.title, loc="left")
            fig.settle(fig.figure_of(ax))
            _scale_equally([ax], data.panels)
            _name_points(ax, data, data.panels[0])
            return fig.figure_of(ax)
        count = len(data.panels)
        columns = min(count, {"single": 1, "medium": 2, "wide": 3}[size])
        rows = -(-count // columns)
        spread = [np.ptp(panel.xy, axis=0) for panel in data.panels]
        shape = max(float(s[1] / max(s[0], 1e-9)) for s in spread)
        side = width / columns
        height = rows * min(max(side * shape, 0.5 * side) + 0.5, side, 4.2)
        figure = fig.new_figure(width, height, data.title, data.note, key=_key(data))
        axes = fig.panel_axes(figure, count, columns)
        for frame, panel in zip(axes, data.panels, strict=True):
            _draw_panel(frame, data, panel)
            fig.title_panel(frame, panel.title, width / columns - 0.2)
        fig.freeze(figure)
        _scale_equally(axes, data.panels)
        for frame, panel in zip(axes, data.panels, strict=True):
            _name_points(frame, data, panel)
    return figure


def _looks(data: SpaceData) -> dict[str, Any]:
    """Model -> look. Names tell points apart, so that every model of a role looks the same."""
    roles = {
        group: role
        for panel in data.panels
        for group, role in zip(panel.groups, panel.roles, strict=True)
    }
    others = [group for group, role in roles.items() if role == "other"]
    found = dict(zip(others, looks(["other"] * len(others)), strict=True))
    if _by_language(data):
        return dict(zip(roles, looks(list(roles.values())), strict=True))
    return {group: found.get(group) or looks([role])[0] for group, role in roles.items()}


def _by_language(data: SpaceData) -> bool:
    """Whether points are languages of a model rather than models."""
    return any(panel.labels != panel.groups for panel in data.panels)


def _key(data: SpaceData) -> list[Any]:
    """What colours mean: models if points are languages, else the roles that are known."""
    from matplotlib.lines import Line2D

    found = _looks(data)
    if _by_language(data):
        if len(data.panels) > 1:
            return []
        named = {shortened(group, 32): look for group, look in found.items()}
    else:
        roles = dict(zip(data.panels[0].groups, data.panels[0].roles, strict=True))
        named = {role: found[group] for group, role in roles.items() if role != "other"}
    return [
        Line2D([], [], linestyle="none", label=name, **_marker(look))
        for name, look in named.items()
    ]


def _marker(look: Any) -> dict[str, Any]:
    return {
        "marker": look.marker,
        "markerfacecolor": look.fill if look.filled else "white",
        "markeredgecolor": look.line,
        "markersize": 6,
        "markeredgewidth": 1.0,
    }


def _draw_panel(ax: Axes, data: SpaceData, panel: SpacePanel) -> None:
    found = _looks(data)
    for (x, y), group in zip(panel.xy.tolist(), panel.groups, strict=True):
        ax.plot(x, y, linestyle="none", zorder=3, **_marker(found[group]))
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color("#DDE1E6")


def _scale_equally(axes: Sequence[Axes], panels: Sequence[SpacePanel]) -> None:
    """One scale for both directions and all planes, with room at the edges for names."""
    room = []
    for ax in axes:
        dpi = fig.figure_of(ax).dpi
        frame = ax.get_window_extent()
        inches = np.array([frame.width, frame.height]) / dpi
        room.append((inches, np.maximum(inches - (1.1, 0.5), 0.3 * inches)))
    scale = max(
        float((np.ptp(panel.xy, axis=0) / inner).max())
        for panel, (_, inner) in zip(panels, room, strict=True)
    )
    for ax, panel, (inches, _) in zip(axes, panels, room, strict=True):
        middle = (panel.xy.min(axis=0) + panel.xy.max(axis=0)) / 2
        half = inches * (scale or 1.0) / 2
        ax.set_xlim(middle[0] - half[0], middle[0] + half[0])
        ax.set_ylim(middle[1] - half[1], middle[1] + half[1])
        ax.set_aspect("equal")


def _name_points(ax: Axes, data: SpaceData, panel: SpacePanel) -> None:
    """Write each point's name where there is room; a thin line leads to one that is far."""
    figure = fig.figure_of(ax)
    points = 72 / figure.dpi
    frame = ax.get_window_extent(fig.renderer_of(figure))
    at = ax.transData.transform(panel.xy) * points
    names = [shortened(label, 26) for label in panel.labels]
    fontsize = 8.0 if len(names) <= 30 else 6.5
    sizes = np.array([fig.text_size(figure, name, fontsize) for name in names]) * 72 + (3.0, 1.0)
    bounds = (frame.x0 * points, frame.y0 * points, frame.x1 * points, frame.y1 * points)
    centres = place_beside(at, sizes, bounds, clearance=6.0)
    found = _looks(data)
    for k, (name, centre) in enumerate(zip(names, centres, strict=True)):
        if np.isnan(centre[0]):
            continue
        gap = np.maximum(np.abs(centre - at[k]) - sizes[k] / 2, 0.0)
        far = float(np.hypot(*gap)) > 12.0
        ax.annotate(
            name,
            xy=tuple(panel.xy[k].tolist()),
            xytext=tuple((centre - at[k]).tolist()),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=fontsize,
            color=found[panel.groups[k]].text if panel.roles[k] != "other" else INK,
            arrowprops={"arrowstyle": "-", "color": "#B3B9C2", "linewidth": 0.6, "shrinkB": 4}
            if far
            else None,
            annotation_clip=False,
        )
