"""Reliability of the probability of collapse: what was foretold beside how often it happened."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from repsim.plots.appearance import Size
from repsim.plots.names import number
from repsim.plots.validation.rows import Row, by_split, column

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Bins of equal width between 0 and 1.
BINS = 10
#: Standard normal quantile of a 95 % interval.
_Z = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class ReliabilityPanel:
    """Probabilities of one split, in bins.

    Attributes:
        title: Name of the split.
        note: Said under the title.
        mean: `[BINS]` mean probability in the bin; NaN where it is empty.
        share: `[BINS]` share that collapsed.
        low: `[BINS]` lower ends of the Wilson intervals of the shares, 95 %.
        high: `[BINS]` upper ends.
        count: `[BINS]` merges in the bin.
        brier: Mean squared difference of probability and outcome.
        ece: Expected calibration error: mean distance of bins from the diagonal, by count.
        base: Brier score of always foretelling the share of this split that collapsed.
    """

    title: str
    note: str
    mean: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    brier: float
    ece: float
    base: float


@dataclasses.dataclass(frozen=True)
class ReliabilityData:
    """Everything that the figure shows.

    Attributes:
        panels: One per split.
        title, note: Heading, and pieces of the grey line.
    """

    panels: tuple[ReliabilityPanel, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and the scores of every split."""
        said = [
            f"{panel.title}: {panel.note.replace(' · ', ', ')} (Brier score of always saying "
            f"the share that collapsed: {number(panel.base, 3)})"
            for panel in self.panels
        ]
        return (
            "Probability of collapse that was foretold against the share that collapsed, in "
            f"{BINS} bins; bars are 95 % Wilson intervals, which take merges as independent. On "
            "the diagonal a probability means what it says; points above it are collapses that "
            f"were underrated. Beneath: how many merges have that probability. {'; '.join(said)}."
        )


def prepare_reliability(
    rows: Iterable[Row], *, notes: Mapping[str, str] | None = None, title: str | None = None
) -> ReliabilityData:
    """Probabilities and outcomes by split, in bins of equal width.

    Args:
        rows: One per merge, with the columns split, p_collapse, collapsed (0 or 1); rows whose
            "p_collapse" is null were refused and are left out.
        notes: Split -> numbers under the title of its panel, in place of Brier score and ECE.
        title: Heading instead of the one that is made.

    Raises:
        UsageError: Nothing to draw, a missing column, or too many splits.

    Example:
        >>> rows = [{"split": "models", "p_collapse": p, "collapsed": c}
        ...         for p, c in [(0.1, 0), (0.1, 0), (0.9, 1), (0.9, 0)]]
        >>> panel = prepare_reliability(rows).panels[0]
        >>> round(panel.brier, 3), round(panel.ece, 3)
        (0.21, 0.25)
    """
    groups = by_split(
        (row for row in rows if row.get("p_collapse", 0.0) is not None),
        ("p_collapse", "collapsed"),
        "probabilities of collapse",
    )
    return ReliabilityData(
        panels=tuple(
            _panel(name, group, (notes or {}).get(name)) for name, group in groups.items()
        ),
        title=title if title is not None else "Probability of collapse and collapses",
        note=("bars: 95 % Wilson intervals", "beneath: number of merges"),
    )


def _panel(name: str, rows: Sequence[Row], note: str | None) -> ReliabilityPanel:
    p, outcome = column(rows, "p_collapse"), column(rows, "collapsed")
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    filled = np.where(count > 0, count, np.nan)
    mean = np.bincount(place, p, minlength=BINS) / filled
    share = np.bincount(place, outcome, minlength=BINS) / filled
    ends = [wilson(float(s), int(c)) for s, c in zip(share, count, strict=True)]
    brier = float(np.mean((p - outcome) ** 2))
    ece = float(np.nansum(count * np.abs(mean - share)) / len(rows))
    words = f"Brier {number(brier, 3)} · ECE {number(ece, 3)} · {len(rows)} merges"
    return ReliabilityPanel(
        title=name,
        note=words if note is None else note,
        mean=mean,
        share=share,
        low=np.array([low for low, _ in ends]),
        high=np.array([high for _, high in ends]),
        count=count,
        brier=brier,
        ece=ece,
        base=float(outcome.mean() * (1 - outcome.mean())),
    )


def wilson(share: float, count: int) -> tuple[float, float]:
    """Interval of 95 % for a share, by Wilson's score (1927).

    Args:
        share: Share found.
        count: Out of how many.

    Returns:
        Lower and upper end; NaN for nothing counted.

    Example:
        >>> [round(end, 3) for end in wilson(0.0, 10)]
        [0.0, 0.278]
    """
    if count == 0:
        return math.nan, math.nan
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    spread = math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    half = _Z * spread / (1 + _Z**2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def plot_reliability(
    rows: Iterable[Row],
    *,
    notes: Mapping[str, str] | None = None,
    size: Size = "wide",
    title: str | None = None,
) -> Figure:
    """Draw the reliability of probabilities; arguments as for `prepare_reliability`."""
    from repsim.plots.drawing.validation.reliability import draw_reliability

    return draw_reliability(prepare_reliability(rows, notes=notes, title=title), size=size)
