"""Coverage of intervals, their width, and how often no forecast is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from repsim.core.formatting import number, percent
from repsim.plots.appearance import GREY, Look, Size, line_marker, looks
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.rows import draw_point
from repsim.plots.spec import Drawing, Figure, Numbers, Where
from repsim.plots.validation.rows import INTERVALS, Row, by_split, numbers_of

#: Nominal coverage of the intervals.
PROMISED = 0.9
#: Coverage that counts as kept.
GOAL = (0.88, 0.93)
_BAND = "#DCEBE2"
_NEEDED = ("stratum", "coverage", "coverage_low", "coverage_high", "width", "refused")


def _caption(info: Numbers) -> str:
    said = [
        f"{split}: coverage {percent(point.coverage)}, mean width {number(point.width)}, "
        f"{percent(point.refused)} refused"
        for split, points in info.splits.items()
        for point in points
        if point.stratum == 0
    ]
    return (
        f"Share of outcomes inside their {percent(PROMISED)} interval (band: "
        f"{percent(GOAL[0])} to {percent(GOAL[1])}), mean width of the intervals, and share of "
        "merges that were refused as too unlike what is known. A narrow interval is worth "
        f"something only where the coverage is kept. For {info.strata[0]}: {'; '.join(said)}."
    )


def intervals_info(rows: Iterable[Row]) -> Numbers:
    """Coverage, width and refusals by split and stratum."""
    groups = by_split(rows, _NEEDED, "intervals")
    strata = tuple(dict.fromkeys(str(row["stratum"]) for group in groups.values() for row in group))
    splits = {
        split: tuple(
            Numbers(
                **numbers_of(row, *_NEEDED[1:]) | {"stratum": strata.index(str(row["stratum"]))}
            )
            for row in group
        )
        for split, group in groups.items()
    }
    ends = any(p.coverage_low == p.coverage_low for points in splits.values() for p in points)
    made = "Coverage and width of the intervals"
    note = (f"bars: {INTERVALS}",) if ends else ()
    return Numbers(_caption, splits=splits, strata=strata, title=made, note=note)


def draw_intervals(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """A line per split, a frame per quantity."""
    found = looks(["other"] * len(info.strata))
    key = {name: {"linestyle": "", **line_marker(look)}
           for name, look in zip(info.strata, found, strict=True)}  # fmt: skip
    per_split = max(0.3, 0.13 * len(info.strata) + 0.1)
    height = 0.7 + per_split * len(info.splits)
    grid = {"sharey": True, "width_ratios": (1.25, 1, 1)}
    frames = fig.frames(info, ax, 3, 3, size, height, key=fig.key_of(key), **grid)
    frames[0].axvspan(*GOAL, color=_BAND, linewidth=0, zorder=0)
    frames[0].axvline(PROMISED, color=GREY, linewidth=0.9, linestyle=(0, (3.5, 2)), zorder=1)
    for split_place, points in enumerate(info.splits.values()):
        for point in points:
            height = split_place + _offset(point.stratum, len(info.strata))
            _draw_point(frames, point, height, found[point.stratum])
    _finish(frames, info)
    return fig.finish(frames)


def _offset(stratum: int, strata: int) -> float:
    return 0.0 if strata == 1 else (stratum / (strata - 1) - 0.5) * 0.5


def _draw_point(frames: Any, point: Numbers, height: float, look: Look) -> None:
    marker = line_marker(look)
    draw_point(frames[0], height, point.coverage, (point.coverage_low, point.coverage_high), marker)
    for frame, value in zip(frames[1:], (point.width, point.refused), strict=True):
        draw_point(frame, height, value, (np.nan, np.nan), marker)


def _finish(frames: Any, info: Numbers) -> None:
    points = [point for found in info.splits.values() for point in found]
    least = min([0.75, *(v for p in points for v in (p.coverage, p.coverage_low) if v == v)])
    frames[0].set_xlim(max(0.0, least) - 0.03, 1.02)
    for frame, quantity in zip(frames[1:], ("width", "refused"), strict=True):
        most = max([0.0, *(v for p in points if (v := getattr(p, quantity)) == v)])
        frame.set_xlim(0 - 0.03 * (most or 1), (most or 1) * 1.1)
    figure = fig.figure_of(frames[0])
    labels = [fig.fitted(figure, name, 1.5, size=7.5) for name in info.splits]
    frames[0].set_yticks(range(len(labels)), labels)
    frames[0].set_ylim(len(labels) - 0.5, -0.5)
    room = (float(figure.get_size_inches()[0]) - 1.7) / 3.3
    names = ("share inside", "mean width", "share refused")
    for frame, name in zip(frames, names, strict=True):
        frame.grid(visible=True, axis="x")
        frame.tick_params(axis="y", length=0)
        frame.locator_params(axis="x", nbins=4 if room > 1.2 else 2)
        for edge in range(1, len(labels)):
            frame.axhline(edge - 0.5, color="#E6E9ED", linewidth=0.8, zorder=0)
        frame.set_xlabel(fig.fitted(figure, name, room))


ROWS = (
    "Per split and stratum: split, stratum, coverage, coverage_low, coverage_high, width, refused."
)
INTERVALS_FIGURE = Figure(
    "validation_intervals", "rows", intervals_info, draw_intervals, {"rows": ROWS}
)
