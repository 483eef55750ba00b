"""Whether intervals hold what they promise, how wide they are, and how often none is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

from repsim.core.formatting import percent
from repsim.plots.appearance import Size
from repsim.plots.names import number
from repsim.plots.validation.rows import Row, by_split, known

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What the intervals promise.
PROMISED = 0.9
#: Coverage that counts as kept.
GOAL = (0.88, 0.93)
_NEEDED = ("stratum", "coverage", "coverage_low", "coverage_high", "width", "refused")


@dataclasses.dataclass(frozen=True)
class IntervalPoint:
    """Intervals of one stratum in one split; NaN where a number is not known.

    Attributes:
        stratum: Place of the stratum in `IntervalsData.strata`.
        coverage: Share of outcomes that lie in their interval.
        low: Lower end of the interval of that share.
        high: Upper end.
        width: Mean width of the intervals, in retention.
        refused: Share of merges for which no forecast was given.
    """

    stratum: int
    coverage: float
    low: float
    high: float
    width: float
    refused: float


@dataclasses.dataclass(frozen=True)
class IntervalsData:
    """Everything that the figure shows.

    Attributes:
        splits: Split -> its points.
        strata: Names, in the order of their colours.
        title, note: Heading, and pieces of the grey line.
    """

    splits: dict[str, tuple[IntervalPoint, ...]]
    strata: tuple[str, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and the numbers of the first stratum."""
        said = [
            f"{split}: {percent(point.coverage)} held, mean width {number(point.width)}, "
            f"{percent(point.refused)} refused"
            for split, points in self.splits.items()
            for point in points
            if point.stratum == 0
        ]
        return (
            f"Share of outcomes inside their {percent(PROMISED)} interval (band: "
            f"{percent(GOAL[0])} to {percent(GOAL[1])}), mean width of the intervals, and share of "
            "merges that were refused as too unlike what is known. A narrow interval is worth "
            f"something only where the coverage is kept. For {self.strata[0]}: {'; '.join(said)}."
        )


def prepare_intervals(rows: Iterable[Row], *, title: str | None = None) -> IntervalsData:
    """Coverage, width and refusals by split and stratum.

    Args:
        rows: One per split and stratum, with the columns split, stratum, coverage, coverage_low,
            coverage_high, width, refused; null where a number is not known.
        title: Heading instead of the one that is made.

    Raises:
        UsageError: Nothing to draw, a missing column, or too many splits.

    Example:
        >>> row = {"split": "models", "stratum": "all", "coverage": 0.9, "coverage_low": 0.86,
        ...        "coverage_high": 0.93, "width": 0.4, "refused": 0.02}
        >>> prepare_intervals([row]).splits["models"][0].width
        0.4
    """
    groups = by_split(rows, _NEEDED, "intervals")
    strata = tuple(dict.fromkeys(str(row["stratum"]) for group in groups.values() for row in group))
    splits = {
        split: tuple(
            IntervalPoint(
                strata.index(str(row["stratum"])), *(known(row[name]) for name in _NEEDED[1:])
            )
            for row in group
        )
        for split, group in groups.items()
    }
    ends = [p.low for points in splits.values() for p in points if p.low == p.low]
    return IntervalsData(
        splits=splits,
        strata=strata,
        title=title if title is not None else "Do the intervals keep their promise?",
        note=("bars: 95 % intervals, bootstrap over models",) if ends else (),
    )


def plot_intervals(rows: Iterable[Row], *, size: Size = "wide", title: str | None = None) -> Figure:
    """Draw coverage, width and refusals; arguments as for `prepare_intervals`."""
    from repsim.plots.drawing.validation.intervals import draw_intervals

    return draw_intervals(prepare_intervals(rows, title=title), size=size)
