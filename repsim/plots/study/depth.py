"""Similarity of pairs whose merge survives and of pairs whose merge collapses, by depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from repsim.core.atlas import Atlas
from repsim.core.errors import UsageError
from repsim.core.formatting import number
from repsim.plots.appearance import FAINT, Size, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.study.axes import COLLAPSES, SURVIVES
from repsim.plots.study.features import CALIBRATED, LADDER, SECTIONS, Measured, measured_pairs
from repsim.stats.bootstrap import Estimate, estimate


def _caption(info: Numbers) -> str:
    words = []
    for panel in info.panels:
        middle = [
            f"{'survive' if curve.survives else 'collapse'} {number(curve.middle[2].value)}"
            for curve in panel.curves
        ]
        words.append(f"{panel.rung} {panel.label}: {', '.join(middle)}")
    return (
        "Calibrated similarity of two models that read the same text (0: 95 % quantile under "
        "shuffled sentences, 1: identical), by depth, for pairs whose plain mean survives or "
        "collapses. Thin: pairs; thick: median; band: 95 % interval over models. Medians in "
        "the middle blocks: " + "; ".join(words) + "."
    )


def depth_info(atlas: Atlas) -> Numbers:
    """Similarity by depth, of pairs that survive and of pairs that collapse."""
    pairs = [pair for pair in measured_pairs(atlas)
             if any(f"{name}_middle" in pair.values for name in LADDER)]  # fmt: skip
    panels = []
    for name, (rung, label) in LADDER.items():
        if those := [pair for pair in pairs if f"{name}_middle" in pair.values]:
            curves = tuple(_curve(name, those, survives) for survives in (True, False)
                           if any(pair.outcome.collapsed != survives for pair in those)
                           )  # fmt: skip
            panels.append(Numbers(rung=rung, label=label, curves=curves))
    if not panels:
        raise UsageError("the atlas holds no similarity of activations of pairs of parents")
    survive = sum(not pair.outcome.collapsed for pair in pairs)
    return Numbers(
        _caption,
        panels=tuple(panels),
        title="Similarity of pairs that survive and of pairs that collapse",
        note=(
            f"{survive} pairs survive, {len(pairs) - survive} collapse",
            "band: 95 % over models",
        ),
    )


def _curve(name: str, pairs: Sequence[Measured], survives: bool) -> Numbers:
    those = [pair for pair in pairs if pair.outcome.collapsed != survives]
    lines = np.array([[pair.values.get(f"{name}_{section}", np.nan) for section in SECTIONS]
                      for pair in those])  # fmt: skip
    middle = []
    for column in lines.T:
        known = np.flatnonzero(np.isfinite(column))
        parents = [those[i].outcome.parents for i in known]
        none = Estimate(np.nan, np.nan, np.nan, 0, 0)
        middle.append(estimate(column[known].tolist(), parents) if len(known) else none)
    return Numbers(survives=survives, lines=lines, middle=tuple(middle))


_LOOKS: dict[bool, dict[str, Any]] = {
    True: {"color": SURVIVES, "marker": "o"},
    False: {"color": COLLAPSES, "marker": "X"},
}


def draw_depth(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """A panel per measure, a band per outcome."""
    count = len(info.panels)
    columns = min(count, 4 if size == "wide" else 2)
    height = 1.9 * -(-count // columns)
    key = fig.key_of({"the plain mean survives": _LOOKS[True], "it collapses": _LOOKS[False]})
    shared = {"sharey": True, "sharex": True}
    axes = fig.frames(info, ax, count, columns, size, height + 0.2, key=key, **shared)
    room = (width_of(size) - 0.6) / columns - 0.2
    for place, (frame, panel) in enumerate(zip(axes, info.panels, strict=True)):
        _draw_panel(frame, panel)
        fig.title_panel(frame, f"{panel.rung} {panel.label}", room)
        frame.tick_params(labelbottom=place + columns >= count)
    fig.name_axes(axes, "part of the depth", CALIBRATED, height)
    return fig.finish(axes)


def _draw_panel(ax: Axes, panel: Numbers) -> None:
    ax.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
    places = np.arange(len(SECTIONS))
    for curve in panel.curves:
        look = _LOOKS[curve.survives]
        for line in curve.lines:
            ax.plot(places, line, color=look["color"], linewidth=0.4, alpha=0.22, zorder=1.5)
        low = np.array([found.low for found in curve.middle])
        high = np.array([found.high for found in curve.middle])
        if np.isfinite(low).any():
            ax.fill_between(
                places, low, high, color=look["color"], alpha=0.2, linewidth=0, zorder=2
            )
        values = [found.value for found in curve.middle]
        ax.plot(places, values, markersize=4.5, linewidth=1.8, zorder=3, **look)
    ax.set_xticks(places, SECTIONS)
    ax.set_xlim(-0.25, len(SECTIONS) - 0.75)


DEPTH = Figure("atlas_depth", "atlas", depth_info, draw_depth)
