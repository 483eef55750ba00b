"""Drawing of similarity by depth and outcome, and of the ladder as a plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.plots.appearance import FAINT, GREY, Size, darkened, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.labels import EndLabel, spread_end_labels, write_end_labels
from repsim.plots.drawing.study.axes import DIES, LIVES, look_of, marker, setting_key
from repsim.plots.names import wrapped
from repsim.plots.study.features import CALIBRATED, SECTIONS
from repsim.plots.study.similarity import (
    DepthCurve,
    DepthData,
    DepthPanel,
    PlaneData,
    rung_words,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


def draw_depth(data: DepthData, *, size: Size = "wide") -> Figure:
    """Draw prepared similarity by depth: a panel per measure, a band per outcome.

    Raises:
        UsageError: The size is unknown.
    """
    width = width_of(size)
    columns = min(len(data.panels), 4 if size == "wide" else 2)
    rows = -(-len(data.panels) // columns)
    with style():
        figure = fig.new_figure(width, 1.9 * rows + 0.2, data.title, data.note, key=_outcome_key())
        axes = fig.panel_axes(figure, len(data.panels), columns, sharey=True, sharex=True)
        room = (width - 0.6) / columns - 0.2
        for place, (ax, panel) in enumerate(zip(axes, data.panels, strict=True)):
            _draw_depth_panel(ax, panel)
            fig.title_panel(ax, f"{panel.rung} {panel.label}", room)
            ax.tick_params(labelbottom=place + columns >= len(data.panels))
        fig.name_outer_axes(figure, "part of the depth", CALIBRATED, 1.9 * rows)
        fig.freeze(figure)
    return figure


def _outcome_key() -> list[Line2D]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=LIVES, marker="o", label="the plain mean lives"),
        Line2D([], [], color=DIES, marker="X", label="it collapses"),
    ]


def _draw_depth_panel(ax: Axes, panel: DepthPanel) -> None:
    ax.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
    for curve in panel.curves:
        _draw_curve(ax, curve)
    ax.set_xticks(range(len(SECTIONS)), SECTIONS)
    ax.set_xlim(-0.25, len(SECTIONS) - 0.75)


def _draw_curve(ax: Axes, curve: DepthCurve) -> None:
    colour = LIVES if curve.lives else DIES
    places = np.arange(len(SECTIONS))
    for line in curve.lines:
        ax.plot(places, line, color=colour, linewidth=0.4, alpha=0.22, zorder=1.5)
    low = np.array([found.low for found in curve.middle])
    high = np.array([found.high for found in curve.middle])
    if np.isfinite(low).any():
        ax.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0, zorder=2)
    values = [found.value for found in curve.middle]
    shape = "o" if curve.lives else "X"
    ax.plot(places, values, color=colour, marker=shape, markersize=4.5, linewidth=1.8, zorder=3)


def draw_plane(data: PlaneData, *, size: Size = "wide") -> Figure:
    """Draw the prepared ladder: profiles on the left, the plane of L0 and L2 on the right.

    Raises:
        UsageError: The size is unknown.
    """
    width = width_of(size)
    beside = size == "wide"
    with style():
        key = setting_key([profile.setting for profile in data.profiles])
        figure = fig.new_figure(width, 3.3 if beside else 6.2, data.title, data.note, key=key)
        ladder, plane = fig.panel_axes(figure, 2, 2 if beside else 1)
        _draw_profiles(ladder, data, named=size != "single")
        _draw_points(plane, data)
        fig.freeze(figure)
        spread_end_labels(ladder)
    return figure


def _draw_profiles(ax: Axes, data: PlaneData, *, named: bool) -> None:
    places = np.arange(len(data.rungs))
    labels = []
    for profile in data.profiles:
        share = profile.lives / profile.pairs
        colour = LIVES if share >= 0.5 else DIES
        options = marker(look_of(profile.setting), 4.0)
        ax.plot(places, profile.values, linewidth=1.2, zorder=2, **{**options, "color": colour})
        text = f"{profile.lives}/{profile.pairs}"
        labels.append(EndLabel(profile.values[-1], text, darkened(colour, 4.5), bold=False))
    ax.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
    ax.set_xticks(places, [rung_words(rung) if named else rung for rung in data.rungs])
    ax.set_ylabel(wrapped(CALIBRATED, 26))
    ax.set_title("by setting (right: pairs that live)")
    write_end_labels(ax, labels, size=7.0)


def _draw_points(ax: Axes, data: PlaneData) -> None:
    for profile in data.profiles:
        for lives in (False, True):
            those = [point for point in data.points
                     if point.setting == profile.setting
                     and (point.retention >= COLLAPSE) == lives]  # fmt: skip
            options = marker(look_of(profile.setting), 4.2)
            colour = LIVES if lives else DIES
            filled = look_of(profile.setting).filled
            options |= {"markeredgecolor": darkened(colour, 4.5), "color": colour,
                        "markerfacecolor": colour if filled else "white"}  # fmt: skip
            ax.plot([point.identity for point in those], [point.rotation for point in those],
                    linestyle="", alpha=0.75, zorder=3 if lives else 2, **options)  # fmt: skip
    ends = [value for point in data.points for value in (point.identity, point.rotation)]
    low, high = min(-0.05, min(ends) - 0.03), max(1.03, max(ends))
    ax.plot([low, high], [low, high], color=FAINT, linewidth=0.8, zorder=1)
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.text(0.03, 0.975, "coordinates differ", transform=ax.transAxes, color=GREY, fontsize=7.5,
            va="top")  # fmt: skip
    ax.text(0.97, 0.03, "blue lives, orange collapses", transform=ax.transAxes, color=GREY,
            fontsize=7.5, ha="right", va="bottom")  # fmt: skip
    ax.set_xlabel("L0, same coordinates: unit-wise correlation")
    ax.set_ylabel("L2, up to rotation: debiased CKA")
    ax.set_title("every pair")
