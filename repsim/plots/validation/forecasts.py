"""Retention that was foretold beside retention that was found, one panel per split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from repsim.core.formatting import percent
from repsim.plots.appearance import Size
from repsim.plots.names import number
from repsim.plots.validation.rows import Row, by_split, column

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Below this nothing is told apart: a merge that is far worse than unigrams is lost either way.
LOWEST = -1.0
#: More intervals than this in a panel cover the points.
MAX_INTERVALS = 150
_NEEDED = ("stratum", "predicted", "low", "high", "observed", "refused")


@dataclasses.dataclass(frozen=True)
class ForecastPanel:
    """Forecasts of one split.

    Attributes:
        title: Name of the split.
        note: Said under the title.
        stratum: `[n]` place of each point's stratum in `ForecastsData.strata`.
        predicted: `[n]` retention foretold.
        low: `[n]` lower ends of the intervals, NaN where there are none.
        high: `[n]` upper ends.
        observed: `[n]` retention found.
        refused: `[n]` whether the predictor would have refused to say it.
        shown: Places of the points whose interval is drawn; none of those refused.
    """

    title: str
    note: str
    stratum: np.ndarray
    predicted: np.ndarray
    low: np.ndarray
    high: np.ndarray
    observed: np.ndarray
    refused: np.ndarray
    shown: np.ndarray

    @property
    def coverage(self) -> float:
        """Share of the points, of those not refused, that lie in their interval; NaN for none."""
        known = np.isfinite(self.low) & np.isfinite(self.high) & ~self.refused
        if not known.any():
            return float("nan")
        inside = (self.low <= self.observed) & (self.observed <= self.high)
        return float(inside[known].mean())

    def with_refused(self) -> str:
        """What changes if those refused are counted too; empty if there are none."""
        if not self.refused.any():
            return ""
        every = dataclasses.replace(self, refused=np.zeros_like(self.refused))
        return f" ({percent(every.coverage)} with the {self.refused.sum()} that it would refuse)"


@dataclasses.dataclass(frozen=True)
class ForecastsData:
    """Everything that the figure shows.

    Attributes:
        panels: One per split.
        strata: Names, in the order of their colours.
        lowest: Values below this are drawn there.
        title, note: Heading, and pieces of the grey line.
    """

    panels: tuple[ForecastPanel, ...]
    strata: tuple[str, ...]
    lowest: float
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and how many points lie in their intervals."""
        said = [
            f"{panel.title}: {int((~panel.refused).sum())} forecasts, "
            f"{percent(panel.coverage)} in their interval" + panel.with_refused()
            for panel in self.panels
        ]
        return (
            "Retention foretold against retention found, each forecast by a predictor that knew no "
            "parent of the merge, and nothing of what its split holds out. Horizontal bars are the "
            "90 % intervals; a bar that meets the diagonal holds what was found. In the shaded "
            f"quarters it is wrong about collapse. {'; '.join(said)}."
        )


def prepare_forecasts(
    rows: Iterable[Row],
    *,
    notes: Mapping[str, str] | None = None,
    lowest: float = LOWEST,
    title: str | None = None,
) -> ForecastsData:
    """Forecasts and outcomes by split.

    Args:
        rows: One per forecast, with the columns split, stratum, predicted, low, high, observed, and
            refused: 1 if the predictor would not have said it.
        notes: Split -> numbers under the title of its panel.
        lowest: Values below this are drawn there.
        title: Heading instead of the one that is made.

    Raises:
        UsageError: Nothing to draw, a missing column, or too many splits.

    Example:
        >>> row = {"split": "models", "stratum": "shared", "predicted": 0.8, "low": 0.6,
        ...        "high": 0.9, "observed": 0.7, "refused": 0}
        >>> data = prepare_forecasts([row, row | {"observed": 0.2}, row | {"refused": 1}])
        >>> data.panels[0].coverage, data.panels[0].refused.tolist()
        (0.5, [False, False, True])
    """
    groups = by_split(rows, _NEEDED, "forecasts")
    strata = tuple(dict.fromkeys(str(row["stratum"]) for group in groups.values() for row in group))
    panels = tuple(
        _panel(name, group, strata, (notes or {}).get(name, "")) for name, group in groups.items()
    )
    below = sum(
        int(((panel.observed <= lowest) | (panel.predicted <= lowest)).sum()) for panel in panels
    )
    thinned = any(len(panel.shown) < (~panel.refused).sum() for panel in panels)
    note = ["bars: 90 % intervals" + (f", of {MAX_INTERVALS} at most" if thinned else "")]
    if below:
        note.append(f"{below} points at or below {number(lowest, 1)} drawn at the edge")
    return ForecastsData(
        panels=panels,
        strata=strata,
        lowest=lowest,
        title=title if title is not None else "Retention foretold and found",
        note=tuple(note),
    )


def _panel(name: str, rows: Sequence[Row], strata: Sequence[str], note: str) -> ForecastPanel:
    observed = column(rows, "observed")
    refused = column(rows, "refused") > 0
    return ForecastPanel(
        title=name,
        note=note,
        stratum=np.array([strata.index(str(row["stratum"])) for row in rows], dtype=int),
        predicted=column(rows, "predicted"),
        low=column(rows, "low"),
        high=column(rows, "high"),
        observed=observed,
        refused=refused,
        shown=_spaced(observed, np.flatnonzero(~refused)),
    )


def _spaced(observed: np.ndarray, among: np.ndarray) -> np.ndarray:
    """At most `MAX_INTERVALS` of some places, evenly spaced in the order of outcomes."""
    order = among[np.argsort(observed[among], kind="stable")]
    count = min(len(order), MAX_INTERVALS)
    return order[np.linspace(0, len(order) - 1, count).round().astype(int)] if count else order


def plot_forecasts(
    rows: Iterable[Row],
    *,
    notes: Mapping[str, str] | None = None,
    lowest: float = LOWEST,
    size: Size = "wide",
    title: str | None = None,
) -> Figure:
    """Draw forecasts against outcomes; arguments as for `prepare_forecasts`."""
    from repsim.plots.drawing.validation.forecasts import draw_forecasts

    return draw_forecasts(
        prepare_forecasts(rows, notes=notes, lowest=lowest, title=title), size=size
    )
