"""Predicted against observed retention, one panel per split."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.core.formatting import number, percent
from repsim.plots.appearance import FAINT, GREY, Look, Size, darkened, looks, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.validation.rows import Row, by_split, column

#: Below this nothing is told apart: a merge that is far worse than unigrams is lost either way.
LOWEST = -1.0
#: With more forecasts than this a panel shows their density, and no point or interval.
MAX_POINTS = 150
#: Fewest forecasts of a bin whose median is drawn, and the number of bins.
_LEAST, _BINS = 15, 12
_BARS = (
    "Horizontal bars are the 90 % intervals; a bar that meets the diagonal contains the observed "
    "value. "
)
_DENSE = (
    "The darker a cell, the more forecasts (logarithmic); the line is the median observed value of "
    "forecasts that are alike, its band their middle 80 %. "
)
#: Fill of the quarters in which the forecast of collapse is wrong.
WRONG = "#F3E4DC"
WRONG_TEXT = darkened("#A9795F", 4.5)
#: Room beyond the best parent's retention.
_HIGHEST = 1.26
_REFUSED: dict[str, Any] = {"marker": "x", "markersize": 2.6, "color": GREY, "alpha": 0.6}
_NEEDED = ("stratum", "predicted", "low", "high", "observed", "refused")


def _caption(info: Numbers) -> str:
    said = [
        f"{panel.title}: {int((~panel.refused).sum())} forecasts, "
        f"{percent(panel.coverage)} in their interval"
        + f" ({percent(panel.coverage_of_all)} with the {panel.refused.sum()} that it would refuse)"
        * bool(panel.refused.any())
        for panel in info.panels
    ]
    return (
        f"Predicted against observed {info.outcome}, each forecast by a predictor that was fitted "
        "on no parent of the merge, and on nothing that its split holds out. "
        + (_BARS if any(panel.sparse for panel in info.panels) else "")
        + (_DENSE if not all(panel.sparse for panel in info.panels) else "")
        + f"In the shaded quarters the forecast is wrong about collapse. {'; '.join(said)}."
    )


def forecasts_info(
    rows: Iterable[Row], *, notes: Mapping[str, str] | None = None, lowest: float = LOWEST,
    outcome: str = "retention",
) -> Numbers:  # fmt: skip
    """Forecasts and outcomes by split."""
    groups = by_split(rows, _NEEDED, "forecasts")
    strata = tuple(dict.fromkeys(str(row["stratum"]) for group in groups.values() for row in group))
    panels = tuple(
        _panel(name, group, strata, (notes or {}).get(name, "")) for name, group in groups.items()
    )
    below = sum(int(((panel.observed <= lowest) | (panel.predicted <= lowest)).sum())
                for panel in panels)  # fmt: skip
    note = []
    if any(panel.sparse for panel in panels):
        note.append("bars: 90 % intervals")
    if not all(panel.sparse for panel in panels):
        note.append("dark: many forecasts · line and band: median and middle 80 % of the observed")
    if below:
        note.append(f"{below} points at or below {number(lowest, 1)} drawn at the edge")
    above = sum(int(((panel.observed > _HIGHEST) | (panel.predicted > _HIGHEST)).sum())
                for panel in panels)  # fmt: skip
    if above:
        note.append(f"{above} points above {number(_HIGHEST)} drawn at the edge")
    return Numbers(
        _caption, panels=panels, strata=strata, lowest=lowest, outcome=outcome,
        title=f"Predicted against observed {outcome}", note=tuple(note),
    )  # fmt: skip


def _panel(name: str, rows: Sequence[Row], strata: Sequence[str], note: str) -> Numbers:
    """Forecasts of one split, `[n]` each."""
    numbers = {key: column(rows, key) for key in ("predicted", "low", "high", "observed")}
    refused = column(rows, "refused") > 0
    return Numbers(
        title=name,
        note=note,
        stratum=np.array([strata.index(str(row["stratum"])) for row in rows], dtype=int),
        refused=refused,
        coverage=_coverage(numbers, ~refused),
        coverage_of_all=_coverage(numbers, np.full(len(rows), True)),
        # Whether single points and their intervals can be told apart.
        sparse=int((~refused).sum()) <= MAX_POINTS,
        course=_course(numbers["predicted"][~refused], numbers["observed"][~refused]),
        **numbers,
    )


def _coverage(numbers: Mapping[str, np.ndarray], those: np.ndarray) -> float:
    """Share of those points that lie in their interval; NaN for none."""
    low, high, observed = (numbers[name] for name in ("low", "high", "observed"))
    known = np.isfinite(low) & np.isfinite(high) & those
    inside = (low <= observed) & (observed <= high)
    return float(inside[known].mean()) if known.any() else float("nan")


def _course(predicted: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """`[bins, 4]`: middle of the forecasts of a bin, 10 %, 50 % and 90 % of the observed."""
    rows = []
    for low, high in itertools.pairwise(np.linspace(LOWEST, _HIGHEST, _BINS + 1).tolist()):
        those = (predicted >= low) & (predicted < high)
        if those.sum() >= _LEAST:
            middle = float(np.median(predicted[those]))
            rows.append([middle, *np.quantile(observed[those], (0.1, 0.5, 0.9))])
    return np.array(rows).reshape(-1, 4)


def draw_forecasts(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """One square frame per split."""
    count = len(info.panels)
    columns = fig.columns_of(count, size)
    found = looks(["other"] * len(info.strata))
    key: dict[str, Any] = {}
    for place, (name, look) in enumerate(zip(info.strata, found, strict=True)):
        if any(p.sparse and ((p.stratum == place) & ~p.refused).any() for p in info.panels):
            key[name] = _marker(look)
    if any(panel.sparse and panel.refused.any() for panel in info.panels):
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
    fig.keep_left(axes, room * columns)
    fig.name_axes(axes, f"predicted {info.outcome}", f"observed {info.outcome}", height)
    return fig.finish(axes)


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


def _draw_panel(ax: Axes, panel: Numbers, found: list[Look], lowest: float) -> None:
    if not panel.sparse:
        _draw_density(ax, panel, lowest)
        return
    from matplotlib.collections import LineCollection

    ends = lowest, _HIGHEST
    x, y = np.clip(panel.predicted, *ends), np.clip(panel.observed, *ends)
    low, high = np.maximum(panel.low, lowest), np.maximum(panel.high, lowest)
    drawn = [i for i in np.flatnonzero(~panel.refused) if np.isfinite(low[i])]
    bars = [[(low[i], y[i]), (high[i], y[i])] for i in drawn]
    colours = [found[panel.stratum[i]].line for i in drawn]
    ax.add_collection(
        LineCollection(bars, colors=colours, linewidths=0.6, alpha=0.28, zorder=2), autolim=False
    )
    cloud: dict[str, Any] = {"linestyle": "", "rasterized": len(x) > 2 * MAX_POINTS}
    for place, look in enumerate(found):
        mine = (panel.stratum == place) & ~panel.refused
        if mine.any():
            ax.plot(x[mine], y[mine], alpha=0.75, zorder=3, **cloud, **_marker(look))
    ax.plot(x[panel.refused], y[panel.refused], zorder=2.5, **cloud, **_REFUSED)


def _draw_density(ax: Axes, panel: Numbers, lowest: float) -> None:
    """How many forecasts lie where, and what was observed of forecasts that are alike."""
    from matplotlib.colors import LogNorm

    kept = ~panel.refused
    ends = lowest, _HIGHEST  # what lies beyond is counted at the edge
    x, y = (np.clip(numbers[kept], *ends) for numbers in (panel.predicted, panel.observed))
    edges = np.linspace(lowest - 0.05, _HIGHEST, 47)
    counts = np.histogram2d(x, y, (edges, edges))[0].T
    ax.pcolormesh(
        edges, edges, np.ma.masked_equal(counts, 0), cmap="Greys", zorder=1.5, rasterized=True,
        norm=LogNorm(0.3, max(10.0, float(counts.max()))),
    )  # fmt: skip
    course = np.maximum(panel.course, lowest)
    line = looks(["other"])[0].line
    ax.fill_between(course[:, 0], course[:, 1], course[:, 3], color=line, alpha=0.25, zorder=2.5,
                    linewidth=0)  # fmt: skip
    ax.plot(course[:, 0], course[:, 2], color="white", linewidth=3.0, zorder=2.8)
    ax.plot(course[:, 0], course[:, 2], color=line, linewidth=1.6, zorder=3)


def _name_panel(ax: Axes, panel: Numbers, room: float) -> None:
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


ROWS = "One per forecast: split, stratum, predicted, low, high, observed, refused (0 or 1)."
FORECASTS = Figure("validation_forecasts", "rows", forecasts_info, draw_forecasts, {"rows": ROWS})
