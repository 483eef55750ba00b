"""Correlation of predicted and observed outcomes within folds, by split, forecast and method."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.formatting import number
from repsim.core.table import Table
from repsim.plots.appearance import GREY, INK, Look, Size, line_marker, looks, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.rows import draw_point, name_rows
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where

#: The mean over methods, as tables call it.
ALL = "all"
#: Inches for names of forecasts, and for one of them.
_LABELS, _LINE = 1.6, 0.34
_MEAN = Look(INK, INK, INK, "D", True)


def _caption(info: Numbers) -> str:
    said = []
    for panel in info.panels:
        means = [
            f"{name} {number(point.value)}"
            for name, points in zip(info.predictors, panel.points, strict=True)
            for point in points if point.method == ALL
        ]  # fmt: skip
        said.append(f"{panel.split}: {', '.join(means)}")
    return (
        "Pearson correlation of predicted and observed outcomes among the merges of one fold "
        "and method, the mean over folds; whiskers: 95 % interval over models. “members” knows "
        "no feature, only how other merges of the same models came out. Mean over methods: "
        + "; ".join(said) + "."
    )  # fmt: skip


def score_info(table: Table) -> Numbers:
    """Correlations within folds, by split, forecast and method."""
    rows = [row for row in table.rows() if row["metric"] == "pearson" and row["value"] is not None]
    if not rows:
        raise UsageError("no forecast ranks the merges of a fold: there is nothing to draw")
    splits = dict.fromkeys(row["split"] for row in rows)
    predictors = tuple(dict.fromkeys(row["predictor"] for row in rows))
    methods = tuple(m for m in dict.fromkeys(row["method"] for row in rows) if m != ALL)
    panels = tuple(
        Numbers(split=split, points=[_points(rows, split, name) for name in predictors])
        for split in splits
    )
    return Numbers(
        _caption,
        panels=panels,
        predictors=predictors,
        methods=methods,
        title="What forecasts tell of merges held out",
        note=("r within folds", "whisker: 95 % over models"),
    )


def _points(rows: list[dict[str, Any]], split: str, name: str) -> list[Numbers]:
    """Correlations of a forecast by method, with intervals over models; NaN where there is none."""
    ends = {"low": "ci_low", "high": "ci_high"}
    return [
        Numbers(method=row["method"], value=row["value"],
                **{end: math.nan if row[key] is None else row[key] for end, key in ends.items()})
        for row in rows if row["split"] == split and row["predictor"] == name
    ]  # fmt: skip


def draw_scores(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """A line per forecast, a frame per split; methods beside each other, their mean in black."""
    look = dict(zip(info.methods, looks([""] * len(info.methods)), strict=True))
    if len(info.methods) == 1:
        look = {}
    look[ALL] = _MEAN
    named = {("mean over methods" if m == ALL else m): one for m, one in look.items()}
    key = fig.key_of({name: {"linestyle": "", **line_marker(one, 4.0)}
                      for name, one in named.items()} if len(look) > 1 else {})  # fmt: skip
    count = len(info.panels)
    columns = min(count, 2)
    height = -(-count // columns) * (0.65 + _LINE * len(info.predictors))
    shared = {"sharey": True, "sharex": True}
    axes = fig.frames(info, ax, count, columns, size, height, key=key, **shared)
    for frame, panel in zip(axes, info.panels, strict=True):
        _draw_panel(frame, panel, info, look)
        fig.title_panel(frame, panel.split, (width_of(size) - _LABELS) / columns - 0.1)
    fig.name_axes(axes, "correlation of predicted and observed outcomes within folds", "", height)
    return fig.finish(axes)


def _draw_panel(ax: Axes, panel: Numbers, info: Numbers, look: dict[str, Look]) -> None:
    ax.axvline(0, color=GREY, linewidth=0.9, zorder=1)
    for place, points in enumerate(panel.points):
        shown = [point for point in points if point.method in look]
        for step, point in zip(np.linspace(-0.28, 0.28, max(len(shown), 2)), shown, strict=False):
            one = look[point.method]
            at = place + (step if len(shown) > 1 else 0.0)
            ends = point.low, point.high
            draw_point(ax, at, point.value, ends, line_marker(one, 3.6), width=0.8)
    name_rows(ax, info.predictors, _LABELS, size=7)
    ax.tick_params(labelbottom=True)


SCORES = Figure("outcome_scores", "outcome_scores", score_info, draw_scores)
