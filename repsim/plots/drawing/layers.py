"""Drawing of layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from repsim.plots.appearance import (
    FAINT,
    GREY,
    NULL_BAND,
    Look,
    Size,
    looks,
    style,
    width_of,
)
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.labels import EndLabel, spread_end_labels, write_end_labels
from repsim.plots.layers import (
    MAX_CURVES,
    MAX_MEMBERS,
    Curve,
    LayersData,
    LayersPanel,
    null_envelope,
)
from repsim.plots.names import wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_layers(data: LayersData, *, ax: Axes | None = None, size: Size = "wide") -> Figure:
    """Draw prepared curves, into an axes or a figure of their own.

    Raises:
        UsageError: `ax` was given for several panels, or the size is unknown.
    """
    width = width_of(size)
    fig.only_one_panel(ax, len(data.panels))
    with style():
        if ax is not None:
            _draw_panel(ax, data, data.panels[0], size)
            ax.set(xlabel=_x_label(data, size), ylabel=data.facts.axis_label)
            ax.set_title(data.title, loc="left")
            fig.settle(fig.figure_of(ax))
            spread_end_labels(ax)
            return fig.figure_of(ax)
        columns, height = _arrangement(len(data.panels), size)
        figure = fig.new_figure(width, height, data.title, data.note, key=_key(data))
        axes = _frames(figure, data, columns, height, size)
        for frame, panel in zip(axes, data.panels, strict=True):
            _draw_panel(frame, data, panel, size)
            fig.title_panel(frame, panel.title, width / columns - 0.4)
        fig.freeze(figure)
        for frame in axes:
            spread_end_labels(frame)
    return figure


def _arrangement(panels: int, size: Size) -> tuple[int, float]:
    """Columns, and the height of all panels in inches."""
    width = width_of(size)
    if panels == 1:
        return 1, {"single": 2.3, "medium": 2.6, "wide": 2.9}[size]
    columns = min(panels, {"single": 2, "medium": 3, "wide": 3 if panels <= 9 else 5}[size])
    rows = math.ceil(panels / columns)
    return columns, rows * (width / columns) * 0.72 + 0.35


def _frames(
    figure: Figure, data: LayersData, columns: int, height: float, size: Size
) -> list[Axes]:
    """One axes per panel on shared scales; only the outer ones carry numbers."""
    count = len(data.panels)
    frames = fig.panel_axes(figure, count, columns, sharex=True, sharey=True)
    for place, frame in enumerate(frames):
        frame.tick_params(labelbottom=place + columns >= count)
    x, y = _x_label(data, size), data.facts.axis_label
    if count == 1:
        frames[0].set(xlabel=x, ylabel=fig.fitted(figure, y, height - 0.6))
    else:
        fig.name_outer_axes(figure, x, y, height)
    return frames


def _x_label(data: LayersData, size: Size) -> str:
    if not data.relative:
        return "layer"
    ends = " (0 = embedding, 1 = last block)"
    return "relative depth" + (ends if size != "single" else "")


def _looks(data: LayersData) -> dict[str, Look]:
    """Label -> look; a curve looks the same in every panel."""
    roles = {curve.label: curve.role for curve in data.curves}
    if len(roles) > MAX_CURVES:  # each has its own panel, so colour says the role and nothing else
        return {label: looks([role])[0] for label, role in roles.items()}
    return dict(zip(roles, looks(list(roles.values())), strict=True))


def _key(data: LayersData) -> list[Any]:
    """Named lines above small multiples whose panels hold several curves each."""
    from matplotlib.lines import Line2D

    if len(data.panels) == 1 or max(len(panel.curves) for panel in data.panels) == 1:
        return []
    return [Line2D([], [], label=label, **_line(look)) for label, look in _looks(data).items()]


def _line(look: Look) -> dict[str, Any]:
    return {
        "color": look.line,
        "marker": look.marker,
        "markerfacecolor": look.fill if look.filled else "white",
        "markeredgecolor": look.line,
        "markeredgewidth": 0.9,
    }


def _draw_panel(ax: Axes, data: LayersData, panel: LayersPanel, size: Size) -> None:
    small = len(data.panels) > 1
    ax.grid(visible=True, axis="y")
    _draw_null(ax, panel.curves, data)
    if small:
        _draw_context(ax, data, panel)
    found = _looks(data)
    for curve in panel.curves:
        _draw_curve(ax, curve, found[curve.label], small=small, partial=data.show_partial)
    ax.set_ylim(*data.limits)
    everything = np.concatenate([curve.x for curve in data.curves])
    span = float(everything.max() - everything.min()) or 1.0
    ax.set_xlim(float(everything.min()) - 0.03 * span, float(everything.max()) + 0.03 * span)
    if data.relative:
        ax.set_xticks([0, 0.5, 1] if small else [0, 0.25, 0.5, 0.75, 1])
    else:
        ax.xaxis.set_major_locator(MaxNLocator(4 if small else 8, integer=True))
    if not small:
        write_end_labels(ax, _end_labels(panel.curves, found, data, size))


def _draw_curve(ax: Axes, curve: Curve, look: Look, *, small: bool, partial: bool) -> None:
    if len(curve.members) <= MAX_MEMBERS:
        for member in curve.members:
            ax.plot(curve.x, member, color=look.fill, linewidth=0.5, alpha=0.3, zorder=1.8)
    if np.isfinite(curve.low).any():
        ax.fill_between(curve.x, curve.low, curve.high, color=look.fill, alpha=0.2, linewidth=0)
    if partial and np.isfinite(curve.partial).any():
        ax.plot(curve.x, curve.partial, color=look.line, linewidth=1.0, linestyle=(0, (3.5, 2)))
    options = _line(look) | ({"markersize": 2.6, "linewidth": 1.3} if small else {})
    ax.plot(curve.x, curve.value, label=curve.label, zorder=3, **options)


def _draw_null(ax: Axes, curves: Sequence[Curve], data: LayersData) -> None:
    """One band for all curves of a panel: where shuffled pairs fall, by the widest of the nulls."""
    envelope = null_envelope(curves, similarity=data.facts.is_similarity)
    if envelope is None:
        return
    x, edge = envelope
    end = data.limits[0] if data.facts.is_similarity else data.limits[1]
    ax.fill_between(x, edge, end, color=NULL_BAND, linewidth=0, zorder=0.5, label="null")
    ax.plot(x, edge, color=FAINT, linewidth=0.8, zorder=0.6)


def _draw_context(ax: Axes, data: LayersData, panel: LayersPanel) -> None:
    """The other panels' curves, thin and grey, so that each panel can be placed among them."""
    for other in data.panels:
        if other is not panel:
            for curve in other.curves:
                ax.plot(curve.x, curve.value, color=FAINT, linewidth=0.6, zorder=1.5)


def _end_labels(
    curves: Sequence[Curve], found: Mapping[str, Look], data: LayersData, size: Size
) -> list[EndLabel]:
    room = 14 if size == "single" else 24
    labels = []
    if len(curves) > 1:
        labels = [
            EndLabel(float(curve.value[-1]), wrapped(curve.label, room), found[curve.label].text)
            for curve in curves
        ]
    envelope = null_envelope(curves, similarity=data.facts.is_similarity)
    if envelope is not None:
        edge = float(envelope[1][-1])
        end = data.limits[0] if data.facts.is_similarity else data.limits[1]
        labels.append(
            EndLabel((edge + end) / 2, wrapped("shuffled pairs", room - 4), GREY, bold=False)
        )
    return labels
