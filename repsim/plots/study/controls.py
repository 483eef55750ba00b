"""Controls whose outcome is known beforehand: what was expected, and what was found."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from repsim.core.atlas import COLLAPSE, Atlas
from repsim.plots.names import short_codes
from repsim.plots.study.outcomes import ALIGNMENTS, Outcome, chosen, outcomes_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Deviation from 1 that the arithmetic of an exact symmetry may leave.
EXACT = 0.02
KINDS: dict[str, str] = {
    "self": "a model with itself",
    "adjacent": "a model and itself 2 % later",
    "permuted": "a model and its permuted twin",
    "rotated": "a model and its rotated twin",
    "noise": "a model and noise as far away as another model",
}
#: Kind and alignment -> least and most retention that theory allows; the mean of both parents.
EXPECTED: dict[tuple[str, str], tuple[float, float]] = {
    ("self", "none"): (1 - EXACT, 1 + EXACT),
    ("self", "permutation"): (1 - EXACT, 1 + EXACT),
    ("self", "orthogonal"): (1 - EXACT, 1 + EXACT),
    ("adjacent", "none"): (0.9, 1.1),
    ("permuted", "none"): (-math.inf, COLLAPSE),
    ("permuted", "permutation"): (1 - EXACT, 1 + EXACT),
    ("permuted", "orthogonal"): (1 - EXACT, 1 + EXACT),
    ("rotated", "none"): (-math.inf, COLLAPSE),
    ("rotated", "orthogonal"): (1 - EXACT, 1 + EXACT),
    ("noise", "none"): (-math.inf, COLLAPSE),
    ("noise", "permutation"): (-math.inf, COLLAPSE),
    ("noise", "orthogonal"): (-math.inf, COLLAPSE),
}


@dataclasses.dataclass(frozen=True)
class ControlPoint:
    """One control merge: language and retention."""

    language: str
    retention: float
    met: bool


@dataclasses.dataclass(frozen=True)
class ControlRow:
    """One kind of control under one alignment: what is expected and what was found."""

    kind: str
    alignment: str
    expected: tuple[float, float]
    points: tuple[ControlPoint, ...]

    @property
    def label(self) -> str:
        """In words."""
        return f"{KINDS[self.kind]}, {ALIGNMENTS[self.alignment]}"

    @property
    def met(self) -> int:
        """How many are as expected."""
        return sum(point.met for point in self.points)

    def expectation(self) -> str:
        """What is expected, in words."""
        low, high = self.expected
        if math.isinf(low):
            return f"below {high:g}"
        return "1" if low >= 1 - EXACT else f"{low:g} to {high:g}"


@dataclasses.dataclass(frozen=True)
class ControlsData:
    """Everything that the figure shows.

    Attributes:
        rows: One per kind and alignment.
        languages: Short codes, in the order of colours.
        title, note: Heading, and pieces of the grey line.
    """

    rows: tuple[ControlRow, ...]
    languages: tuple[str, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and which controls fail."""
        met, count = sum(r.met for r in self.rows), sum(len(r.points) for r in self.rows)
        failed = [f"{r.label} ({r.met} of {len(r.points)})" for r in self.rows
                  if r.met < len(r.points)]  # fmt: skip
        words = f" Not as expected: {'; '.join(failed)}." if failed else ""
        return (
            "Retention of the mean of two models whose outcome is known beforehand; bars: what is "
            f"expected. {met} of {count} are as expected.{words}"
        )


def prepare_controls(atlas: Atlas) -> ControlsData:
    """Controls with an expectation, under the plain mean.

    Args:
        atlas: What a study found.

    Raises:
        UsageError: It holds none.

    Example:
        >>> from repsim.testing.atlases import planted_atlas
        >>> row = prepare_controls(planted_atlas()).rows[0]
        >>> row.label, row.expectation(), row.met
        ('a model with itself, as they are', '1', 2)
    """
    found = chosen(
        outcomes_of(atlas),
        lambda o: (o.control, o.alignment) in EXPECTED and o.method == "linear",
        "control with a known outcome",
    )
    codes = short_codes([language for outcome in found for language in outcome.languages])
    rows = []
    for (kind, alignment), expected in EXPECTED.items():
        those = [o for o in found if (o.control, o.alignment) == (kind, alignment)]
        points = [_point(outcome, codes, expected) for outcome in those]
        if points:
            rows.append(ControlRow(kind, alignment, expected, tuple(points)))
    rows.sort(key=lambda row: list(KINDS).index(row.kind))
    return ControlsData(
        rows=tuple(rows),
        languages=tuple(codes.values()),
        title="Controls with known answers",
        note=(f"{len(found)} merges", "plain mean"),
    )


def _point(outcome: Outcome, codes: dict[str, str], expected: tuple[float, float]) -> ControlPoint:
    met = expected[0] <= outcome.worst <= expected[1]
    return ControlPoint(codes[outcome.languages[0]], outcome.worst, met)


def plot_controls(atlas: Atlas) -> Figure:
    """Draw controls with known answers; see `prepare_controls`."""
    from repsim.plots.drawing.study.controls import draw_controls

    return draw_controls(prepare_controls(atlas))
