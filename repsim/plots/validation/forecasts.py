"""Predicted against observed retention, one panel per split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.core.formatting import number, percent
from repsim.plots.appearance import FAINT, GREY, Look, Size, darkened, looks, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.spec import Figure
from repsim.plots.validation.rows import Row, by_split, column, columns_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

#: Below this nothing is told apart: a merge that is far worse than unigrams is lost either way.
LOWEST = -1.0
#: More intervals than this in a panel cover the points.
MAX_INTERVALS = 150
#: Fill of the quarters in which the forecast of collapse is wrong.
WRONG = "#F3E4DC"
WRONG_TEXT = darkened("#A9795F", 4.5)
#: Room beyond the best parent's retention.
_HIGHEST = 1.26
#: More points than these are stored as pixels in vector files, which stay small and quick to open.
_CLOUD = 500
_REFUSED: dict[str, Any] = {"marker": "x", "markersize": 2.6, "color": GREY, "alpha": 0.6}
_NEEDED = ("stratum", "predicted", "low", "high", "observed", "refused")


@dataclasses.dataclass(frozen=True)
class ForecastPanel:
    """Forecasts of one split, `[n]` each; `shown` are the places whose interval is drawn."""

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
class ForecastsInfo:
    """A panel per split, strata by colour; values below `lowest` are drawn there."""

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
            "Predicted against observed retention, each forecast by a predictor that was fitted on "
            "no parent of the merge, and on nothing that its split holds out. Horizontal bars are "
            "the 90 % intervals; a bar that meets the diagonal contains the observed value. In the "
            f"shaded quarters the forecast is wrong about collapse. {'; '.join(said)}."
        )


def forecasts_info(
    rows: Iterable[Row],
    *,
    notes: Mapping[str, str] | None = None,
    lowest: float = LOWEST,
    title: str | None = None,
) -> ForecastsInfo:
    """Forecasts and outcomes by split.

    Args:
        rows: One per forecast, with the columns split, stratum, predicted, low, high, observed, and
            refused: 1 if the predictor would not have made it.
        notes: Split -> numbers under the title of its panel.
        lowest: Values below this are drawn there.
        title: Heading instead of the one that is made.

    Raises:
        UsageError: Nothing to draw, a missing column, or too many splits.

    Example:
        >>> row = {"split": "models", "stratum": "shared", "predicted": 0.8, "low": 0.6,
        ...        "high": 0.9, "observed": 0.7, "refused": 0}
        >>> info = forecasts_info([row, row | {"observed": 0.2}, row | {"refused": 1}])
        >>> info.panels[0].coverage, info.panels[0].refused.tolist()
        (0.5, [False, False, True])
    """
    groups = by_split(rows, _NEEDED, "forecasts")
    strata = tuple(dict.fromkeys(str(row["stratum"]) for group in groups.values() for row in group))
    panels = tuple(
        _panel(name, group, strata, (notes or {}).get(name, "")) for name, group in groups.items()
    )
    below = sum(int(((panel.observed <= lowest) | (panel.predicted <= lowest)).sum())
                for panel in panels)  # fmt: skip
    thinned = any(len(panel.shown) < (~panel.refused).sum() for panel in panels)
    note = ["bars: 90 % intervals" + (f", of {MAX_INTERVALS} at most" if thinned else "")]
    if below:
        note.append(f"{below} points at or below {number(lowest, 1)} drawn at the edge")
    made = title if title is not None else "Predicted against observed retention"
    return ForecastsInfo(panels, strata, lowest, made, tuple(note))


def _panel(name: str, rows: Sequence[Row], strata: Sequence[str], note: str) -> ForecastPanel:
    numbers = {key: column(rows, key) for key in ("predicted", "low", "high", "observed")}
    refused = column(rows, "refused") > 0
    return ForecastPanel(
        title=name,
        note=note,
        stratum=np.array([strata.index(str(row["stratum"])) for row in rows], dtype=int),
        refused=refused,
        shown=_spaced(numbers["observed"], np.flatnonzero(~refused)),
        **numbers,
    )


def _spaced(observed: np.ndarray, among: np.ndarray) -> np.ndarray:
    """At most `MAX_INTERVALS` of some places, evenly spaced in the order of outcomes."""
    order = among[np.argsort(observed[among], kind="stable")]
    count = min(len(order), MAX_INTERVALS)
    return order[np.linspace(0, len(order) - 1, count).round().astype(int)] if count else order


@style()
def draw_forecasts(info: ForecastsInfo, *, ax: Axes | None = None, size: Size = "wide") -> Drawing:
    """One square frame per split."""
    count = len(info.panels)
    columns = columns_of(count, size)
    found = looks(["other"] * len(info.strata))
    key: dict[str, Any] = dict(zip(info.strata, map(_marker, found), strict=True))
    if any(panel.refused.any() for panel in info.panels):
        key["refused"] = _REFUSED
    room = min(width_of(size) / columns, 3.9)
    height = -(-count // columns) * (room + 0.05)
    named = fig.key_of({label: {"linestyle": "", **look} for label, look in key.items()})
    shared = {"sharex": True, "sharey": True}
    axes = fig.frames(info, ax, count, columns, size, height, key=named, **shared)
    for frame, panel in zip(axes, info.panels, strict=True):
        _draw_frame(frame, info.lowest)
        _draw_panel(frame, panel, found, info.lowest)
        _name_panel(frame, panel, room - 0.55)
    fig.name_panels(axes, ax, "predicted retention", "observed retention", room * columns, height)
    return fig.finish(axes, ax)


def _marker(look: Look) -> dict[str, Any]:
    return {
        "marker": look.marker,
        "markersize": 3.2,
        "markerfacecolor": look.fill if look.filled else "white",
        "markeredgecolor": "white" if look.filled else look.line,
        "markeredgewidth": 0.3,
    }


def _draw_frame(ax: Axes, lowest: float) -> None:
    low = lowest - 0.06
    ax.set_xlim(low, _HIGHEST)
    ax.set_ylim(low, _HIGHEST)
    ax.set_aspect("equal")
    ax.tick_params(labelbottom=True, labelleft=True)
    for x, y in ((low, COLLAPSE), (COLLAPSE, low)):
        x1, y1 = (COLLAPSE, _HIGHEST) if y == COLLAPSE else (_HIGHEST, COLLAPSE)
        ax.fill([x, x1, x1, x], [y, y, y1, y1], color=WRONG, linewidth=0, zorder=0)
    ax.plot([low, _HIGHEST], [low, _HIGHEST], color=GREY, linewidth=0.9, zorder=1)
    for at in (0.0, 1.0):
        ax.axhline(at, color=FAINT, linewidth=0.6, zorder=0.5)


def _draw_panel(ax: Axes, panel: ForecastPanel, found: list[Look], lowest: float) -> None:
    from matplotlib.collections import LineCollection

    x = np.maximum(panel.predicted, lowest)
    y = np.maximum(panel.observed, lowest)
    low, high = np.maximum(panel.low, lowest), np.maximum(panel.high, lowest)
    drawn = [i for i in panel.shown if np.isfinite(low[i])]
    bars = [[(low[i], y[i]), (high[i], y[i])] for i in drawn]
    colours = [found[panel.stratum[i]].line for i in drawn]
    ax.add_collection(
        LineCollection(bars, colors=colours, linewidths=0.6, alpha=0.28, zorder=2), autolim=False
    )
    cloud: dict[str, Any] = {"linestyle": "", "rasterized": len(x) > _CLOUD}
    for place, look in enumerate(found):
        mine = (panel.stratum == place) & ~panel.refused
        if mine.any():
            ax.plot(x[mine], y[mine], alpha=0.75, zorder=3, **cloud, **_marker(look))
    ax.plot(x[panel.refused], y[panel.refused], zorder=2.5, **cloud, **_REFUSED)


def _name_panel(ax: Axes, panel: ForecastPanel, room: float) -> None:
    """Title, its numbers in grey beneath, and what the shaded quarters mean."""
    fig.title_panel(ax, panel.title, room, y=1.085 if panel.note else None)
    words: dict[str, Any] = {"transform": ax.transAxes, "fontsize": 7, "linespacing": 1.2}
    if panel.note:
        note = fig.fitted(fig.figure_of(ax), panel.note, room, size=7, lines=1)
        ax.text(0, 1.02, note, color=GREY, va="bottom", **words).set_in_layout(False)
    box = {"facecolor": WRONG, "alpha": 0.8, "edgecolor": "none", "pad": 1.0}
    words |= {"color": WRONG_TEXT, "zorder": 4, "bbox": box}
    ax.text(0.03, 0.97, "false alarm", va="top", **words)
    ax.text(0.97, 0.04, "collapse\nmissed", ha="right", va="bottom", **words)


FORECASTS = Figure("validation_forecasts", "rows", forecasts_info, draw_forecasts, vector=False)
