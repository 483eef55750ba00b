"""Controls whose outcome is known beforehand: what was expected, and what was observed."""

from __future__ import annotations

import math

import numpy as np

from repsim.core.atlas import COLLAPSE, Atlas
from repsim.plots.appearance import Look, Size, looks
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.rows import name_rows
from repsim.plots.names import short_codes, wrapped
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.study.axes import COLLAPSES, SURVIVES, marker, retention_axis
from repsim.plots.study.outcomes import ALIGNMENTS, chosen, outcomes_of

#: Deviation from 1 that the arithmetic of an exact symmetry may leave.
EXACT = 0.02
KINDS: dict[str, str] = {
    "self": "a model with itself",
    "adjacent": "a model and itself 2 % later",
    "permuted": "a model and its permuted twin",
    "rotated": "a model and its rotated twin",
    "noise": "a model and noise as far away as another model",
}
_SAME, _GONE = (1 - EXACT, 1 + EXACT), (-math.inf, COLLAPSE)
#: Kind and alignment -> least and most retention that theory allows; the mean of both parents.
EXPECTED: dict[tuple[str, str], tuple[float, float]] = {
    ("self", "none"): _SAME,
    ("self", "permutation"): _SAME,
    ("self", "orthogonal"): _SAME,
    ("adjacent", "none"): (0.9, 1.1),
    ("permuted", "none"): _GONE,
    ("permuted", "permutation"): _SAME,
    ("permuted", "orthogonal"): _SAME,
    ("rotated", "none"): _GONE,
    ("rotated", "orthogonal"): _SAME,
    ("noise", "none"): _GONE,
    ("noise", "permutation"): _GONE,
    ("noise", "orthogonal"): _GONE,
}


def _expectation(low: float, high: float) -> str:
    if math.isinf(low):
        return f"below {high:g}"
    return "1" if low >= 1 - EXACT else f"{low:g} to {high:g}"


def _caption(info: Numbers) -> str:
    met, count = sum(r.met for r in info.rows), sum(len(r.points) for r in info.rows)
    failed = [f"{r.label} ({r.met} of {len(r.points)})" for r in info.rows
              if r.met < len(r.points)]  # fmt: skip
    words = f" Not as expected: {'; '.join(failed)}." if failed else ""
    return (
        "Retention of the mean of two models whose outcome is known beforehand; bars: what is "
        f"expected. {met} of {count} are as expected.{words}"
    )


def controls_info(atlas: Atlas) -> Numbers:
    """Controls with an expectation, under the plain mean."""
    found = chosen(
        outcomes_of(atlas),
        lambda o: (o.control, o.alignment) in EXPECTED and o.method == "linear",
        "control with a known outcome",
    )
    codes = short_codes([language for outcome in found for language in outcome.languages])
    rows = []
    for (kind, alignment), (low, high) in EXPECTED.items():
        points = tuple(
            Numbers(language=codes[o.languages[0]], retention=o.worst, met=low <= o.worst <= high)
            for o in found if (o.control, o.alignment) == (kind, alignment)
        )  # fmt: skip
        if points:
            rows.append(Numbers(
                kind=kind, label=f"{KINDS[kind]}, {ALIGNMENTS[alignment]}", points=points,
                expected=(low, high), expectation=_expectation(low, high),
                met=sum(point.met for point in points),
            ))  # fmt: skip
    rows.sort(key=lambda row: list(KINDS).index(row.kind))
    return Numbers(
        _caption,
        rows=tuple(rows),
        languages=tuple(codes.values()),
        title="Controls with known answers",
        note=(f"{len(found)} merges", "plain mean"),
    )


def draw_controls(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """A row per kind and alignment, a bar where its points should lie."""
    found = dict(zip(info.languages, looks(["other"] * len(info.languages)), strict=True))
    key = fig.key_of({name: {"linestyle": "", **marker(look)} for name, look in found.items()})
    (frame,) = axes = fig.frames(info, ax, 1, 1, size, 0.6 + 0.27 * len(info.rows), key=key)
    values = [point.retention for row in info.rows for point in row.points]
    retention_axis(frame, values, "x", shade=False)
    for place, row in enumerate(info.rows):
        _draw_row(frame, row, place, found)
    name_rows(frame, [wrapped(row.label, 62, 1) for row in info.rows], above=0.6, below=0.6)
    frame.set_xlabel("retention (bar: expected)")
    return fig.finish(axes)


def _draw_row(ax: Axes, row: Numbers, place: int, found: dict[str, Look]) -> None:
    low, high = row.expected
    left, right = ax.get_xlim()
    ends = max(low, left), min(high, right)
    colour = COLLAPSES if np.isinf(low) else SURVIVES
    ax.fill_between(
        ends, place - 0.3, place + 0.3, color=colour, alpha=0.16, linewidth=0, zorder=1.5
    )
    order = list(found)
    for point in row.points:
        shift = 0.36 * ((order.index(point.language) + 0.5) / len(order) - 0.5)
        options = marker(found[point.language])
        if not point.met:
            options |= {"markeredgecolor": "#C00000", "markeredgewidth": 1.6}
        ax.plot([point.retention], [place + shift], linestyle="", zorder=3, **options)
    ax.axhline(place, color="#EEF0F2", linewidth=0.8, zorder=0)


CONTROLS = Figure("atlas_controls", "atlas", controls_info, draw_controls)
