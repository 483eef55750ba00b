"""How much better the predictor is than each baseline, per split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from repsim.plots.appearance import Size
from repsim.plots.names import number
from repsim.plots.validation.rows import Row, by_split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Most baselines that a figure has.
MAX_BASELINES = 30
Outcome = Literal["better", "not told apart", "worse", "no interval"]


@dataclasses.dataclass(frozen=True)
class LiftPoint:
    """Predictor beside one baseline; above 0 the predictor is better. NaN: not defined."""

    baseline: str
    value: float
    low: float
    high: float

    @property
    def outcome(self) -> Outcome:
        """Which of the two is better, as far as the interval tells."""
        if self.low != self.low or self.high != self.high:
            return "no interval"
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "not told apart"


@dataclasses.dataclass(frozen=True)
class LiftPanel:
    """Baselines of one split, by the order of `LiftData.baselines`."""

    title: str
    points: tuple[LiftPoint, ...]


@dataclasses.dataclass(frozen=True)
class LiftData:
    """Everything that the figure shows.

    Attributes:
        panels: One per split.
        baselines: Their labels, the strongest first (least mean lift).
        tested: Number of baselines, of which the strongest are shown.
        axis: What the axis shows.
        title, note: Heading, and pieces of the grey line.
    """

    panels: tuple[LiftPanel, ...]
    baselines: tuple[str, ...]
    tested: int
    axis: str
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and in how many cases the predictor is better."""
        said = []
        for panel in self.panels:
            outcomes = [point.outcome for point in panel.points]
            closest = min(
                (point for point in panel.points if point.value == point.value),
                key=lambda point: point.value,
                default=None,
            )
            words = f"{panel.title}: better than {outcomes.count('better')} of {len(outcomes)}"
            if lost := outcomes.count("worse"):
                words += f", worse than {lost}"
            if closest is not None:
                words += f", closest {closest.baseline} ({number(closest.value, 3)})"
            said.append(words)
        return (
            f"{self.axis[0].upper()}{self.axis[1:]}, for each baseline fitted in the same folds. "
            "Right of 0 the predictor is better; it counts as better where the whole interval "
            f"lies there{self._cut()}. {'; '.join(said)}."
        )

    def _cut(self) -> str:
        """That weaker baselines are not shown, if any are not."""
        if self.tested == len(self.baselines):
            return ""
        return f"; shown are the {len(self.baselines)} strongest of {self.tested} baselines"


def prepare_lift(
    rows: Iterable[Row],
    *,
    axis: str,
    labels: Mapping[str, str] | None = None,
    most: int = MAX_BASELINES,
    title: str | None = None,
    note: Sequence[str] = ("95 % intervals, bootstrap over models",),
) -> LiftData:
    """Lift over baselines by split.

    Args:
        rows: One per split and baseline, with the columns split, baseline, lift, low, high; "lift"
            is signed so that above 0 the predictor is better.
        axis: What "lift" is.
        labels: Baseline -> name for people.
        most: Most baselines; the strongest are kept.
        title: Heading instead of the one that is made.
        note: Pieces of the grey line.

    Raises:
        UsageError: Nothing to draw, a missing column, or too many splits.

    Example:
        >>> rows = [{"split": "models", "baseline": name, "lift": lift, "low": lift - 0.1,
        ...          "high": lift + 0.1} for name, lift in [("mean", 0.5), ("cosine", 0.05)]]
        >>> data = prepare_lift(rows, axis="gain in Spearman correlation")
        >>> data.baselines, [point.outcome for point in data.panels[0].points]
        (('cosine', 'mean'), ['not told apart', 'better'])
    """
    groups = by_split(rows, ("baseline", "lift", "low", "high"), "comparisons with baselines")
    known = labels or {}
    found = {
        split: {
            str(row["baseline"]): LiftPoint(
                known.get(str(row["baseline"]), str(row["baseline"])),
                *(
                    float("nan") if row[k] is None else float(row[k])
                    for k in ("lift", "low", "high")
                ),
            )
            for row in group
        }
        for split, group in groups.items()
    }
    order = _strongest_first(found)
    pieces, tested = list(note), len(order)
    if len(order) > most:
        pieces.append(f"the {most} strongest of {len(order)} baselines")
        order = order[:most]
    nothing = float("nan")
    return LiftData(
        panels=tuple(
            LiftPanel(
                split,
                tuple(
                    points.get(name, LiftPoint(known.get(name, name), nothing, nothing, nothing))
                    for name in order
                ),
            )
            for split, points in found.items()
        ),
        baselines=tuple(known.get(name, name) for name in order),
        tested=tested,
        axis=axis,
        title=title if title is not None else "Better than the baselines?",
        note=tuple(pieces),
    )


def _strongest_first(found: Mapping[str, Mapping[str, LiftPoint]]) -> list[str]:
    """Baselines by their mean lift over splits; those without any come last."""
    names = dict.fromkeys(name for points in found.values() for name in points)

    def mean(name: str) -> float:
        values = [points[name].value for points in found.values() if name in points]
        known = [value for value in values if value == value]
        return sum(known) / len(known) if known else float("inf")

    return sorted(names, key=mean)


def plot_lift(
    rows: Iterable[Row],
    *,
    axis: str,
    labels: Mapping[str, str] | None = None,
    most: int = MAX_BASELINES,
    size: Size = "wide",
    title: str | None = None,
) -> Figure:
    """Draw lift over baselines; arguments as for `prepare_lift`."""
    from repsim.plots.drawing.validation.lift import draw_lift

    return draw_lift(
        prepare_lift(rows, axis=axis, labels=labels, most=most, title=title), size=size
    )
