"""Retention of merges by language: what survives, what collapses."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.core.errors import UsageError
from repsim.core.table import Table
from repsim.plots.appearance import FAINT, GREY, Look, Size, line_marker, looks
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.rows import draw_point, name_rows
from repsim.plots.names import number, short_codes, wrapped
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where

MAX_ROWS = 40


class RetentionPoint(NamedTuple):
    """One model in one language; `low` and `high` are NaN where there is no interval."""

    language: str
    value: float
    low: float = math.nan
    high: float = math.nan


class RetentionRow(NamedTuple):
    """A merge and its points by language; `known` if it was made and measured, not forecast."""

    label: str
    points: tuple[RetentionPoint, ...]
    known: bool = False

    @property
    def worst(self) -> float:
        """Retention of the worst language."""
        return min(point.value for point in self.points)


def _caption(info: Numbers) -> str:
    gone = sum(row.worst < COLLAPSE for row in info.rows)
    best = info.rows[0]
    return (
        "Retention by language: 1 is what the best parent of that language reaches, 0 what "
        f"counting tokens reaches. {gone} of {len(info.rows)} collapse (worst language below "
        f"{COLLAPSE:g}). Best: {best.label}, worst language {number(best.worst)}."
    )


def retention_info(table: Table) -> Numbers:
    """Retention of each merge in an evaluation, by language."""
    kept = table.where(metric="retention")
    codes = short_codes([str(name) for name in kept.unique("language")])
    found: dict[str, list[RetentionPoint]] = {}
    for row in kept.rows():
        if row["value"] is not None:
            ends = [math.nan if row[end] is None else row[end] for end in ("ci_low", "ci_high")]
            point = RetentionPoint(codes[row["language"]], row["value"], *ends)
            found.setdefault(row["model"], []).append(point)
    if not found:
        raise UsageError(
            "the table has no retention to draw",
            hint="name the parents of the merges: repsim evaluate MERGE --parents A --parents B",
        )
    if len(found) > MAX_ROWS:
        raise UsageError(f"{len(found)} models are more than {MAX_ROWS} rows")
    rows = [RetentionRow(model, tuple(points)) for model, points in found.items()]
    intervals = any(np.isfinite(point.low) for row in rows for point in row.points)
    return Numbers(
        _caption,
        rows=tuple(sorted(rows, key=lambda row: -row.worst)),
        languages=tuple(codes.values()),
        title="What the merges kept",
        note=("held-out text", *["bars: 95 % interval over documents"] * intervals),
    )


def draw_retention(
    info: Numbers,
    *,
    ax: Where = None,
    size: Size = "medium",
    limits: tuple[float, float] | None = None,
) -> Drawing:
    """A line per model, a marker per language."""
    numbers = np.array([point[1:] for row in info.rows for point in row.points])
    low, high = float(np.nanmin(numbers)) - 0.05, float(np.nanmax(numbers)) + 0.05
    axis = "retention (0 unigrams, 1 best parent; shaded: collapse)"
    ends = min(-0.05, low), max(1.05, high)
    axes, found = retention_rows(info, ax, size, ends, axis, letters=22, beside=1.6)
    for place, row in enumerate(info.rows):
        reach = [point.value for point in row.points]
        axes[0].plot(
            [min(reach), max(reach)], [place, place], color=FAINT, linewidth=1.4, zorder=1.5
        )
        for point in row.points:
            look, ends = found[point.language], (point.low, point.high)
            draw_point(axes[0], place, point.value, ends, line_marker(look), width=1.0)
    if limits is not None:
        axes[0].set_xlim(*limits)
    return fig.finish(axes)


def retention_rows(
    info: Numbers, where: Where, size: Size, ends: tuple[float, float], axis: str,
    *, letters: int, beside: float,
) -> tuple[list[Axes], dict[str, Look]]:  # fmt: skip
    """A row per merge over retention, shaded where it collapses; `beside`: inches of the labels."""
    found = dict(zip(info.languages, looks(["other"] * len(info.languages)), strict=True))
    key = {name: line_marker(look, linestyle="") for name, look in found.items()}
    height = 0.75 + 0.34 * len(info.rows)
    axes = fig.frames(info, where, 1, 1, size, height, key=fig.key_of(key))
    ax, (low, high) = axes[0], ends
    ax.axvspan(low, COLLAPSE, color="#F3E4DC", linewidth=0, zorder=0)
    ax.axvline(COLLAPSE, color=GREY, linewidth=0.9, linestyle=(0, (3.5, 2)), zorder=1)
    for at in (0.0, 1.0):
        ax.axvline(at, color=FAINT, linewidth=0.8, zorder=1)
    ax.set_xlim(low, high)
    name_rows(ax, [wrapped(row.label, letters) for row in info.rows], above=0.6, below=0.6)
    figure = fig.figure_of(ax)
    whole = float(figure.get_size_inches()[0])
    room = fig.inches_of(ax)[0] if fig.is_given([ax]) else whole - beside
    ax.set_xlabel(fig.fitted(figure, axis, room))
    return axes, found


RETENTION = Figure("retention", "evaluation", retention_info, draw_retention)
