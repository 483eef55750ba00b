"""Retention of merges by language: what lives, what collapses."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.table import Table
from repsim.plots.appearance import Size
from repsim.plots.names import number, short_codes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Retention below which a merge counts as collapsed.
COLLAPSE = 0.5
MAX_ROWS = 40


@dataclasses.dataclass(frozen=True)
class RetentionPoint:
    """One model in one language; `low` and `high` are NaN where there is no interval."""

    language: str
    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class RetentionRow:
    """One model: its points by language, and whether its worst language is below the threshold."""

    model: str
    points: tuple[RetentionPoint, ...]
    collapsed: bool


@dataclasses.dataclass(frozen=True)
class RetentionData:
    """Everything that the figure shows.

    Attributes:
        rows: One per model, the best worst language first.
        languages: Short codes in the order of the colours.
        title, note: Heading, and pieces of the grey line.
    """

    rows: tuple[RetentionRow, ...]
    languages: tuple[str, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and which merges collapse."""
        gone = [row.model for row in self.rows if row.collapsed]
        words = f"{len(gone)} of {len(self.rows)} collapse (worst language below {COLLAPSE:g})"
        best = self.rows[0]
        worst = min(point.value for point in best.points)
        return (
            "Retention by language: 1 is what the best parent of that language reaches, 0 what "
            f"counting tokens reaches. {words}. Best: {best.model}, worst language {number(worst)}."
        )


def prepare_retention(table: Table, *, title: str | None = None) -> RetentionData:
    """Retention of each merge in an evaluation.

    Args:
        table: What `repsim.evaluation.evaluate` returned.
        title: Heading instead of the one that is made.

    Raises:
        UsageError: No retention is defined in it, or more than 40 models have one.

    Example:
        >>> from repsim.testing.evaluation_tables import retention_table
        >>> [row.model for row in prepare_retention(retention_table()).rows]
        ['lives', 'collapses']
    """
    kept = table.where(metric="retention")
    codes = short_codes([str(name) for name in kept.unique("language")])
    found: dict[str, list[RetentionPoint]] = {}
    for row in kept.rows():
        if row["value"] is not None:
            ends = [np.nan if row[end] is None else row[end] for end in ("ci_low", "ci_high")]
            point = RetentionPoint(codes[row["language"]], row["value"], *ends)
            found.setdefault(row["model"], []).append(point)
    if not found:
        raise UsageError(
            "the table has no retention to draw",
            hint="name the parents of the merges: repsim evaluate MERGE --parents A --parents B",
        )
    if len(found) > MAX_ROWS:
        raise UsageError(f"{len(found)} models are more than {MAX_ROWS} rows")

    def least(points: list[RetentionPoint]) -> float:
        return min(point.value for point in points)

    rows = tuple(
        RetentionRow(model, tuple(points), least(points) < COLLAPSE)
        for model, points in sorted(found.items(), key=lambda item: -least(item[1]))
    )
    intervals = any(np.isfinite(point.low) for row in rows for point in row.points)
    note = ["held-out text", *(["bars: 95 % interval over documents"] if intervals else [])]
    return RetentionData(
        rows=rows,
        languages=tuple(codes.values()),
        title=title if title is not None else "What the merges kept",
        note=tuple(note),
    )


def plot_retention(table: Table, *, size: Size = "medium", title: str | None = None) -> Figure:
    """Draw retention by model and language; arguments as for `prepare_retention`."""
    from repsim.plots.drawing.retention import draw_retention

    return draw_retention(prepare_retention(table, title=title), size=size)
