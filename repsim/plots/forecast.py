"""Forecasts of merges: retention with intervals, and the matrix of a pool of models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.core.errors import UsageError
from repsim.core.forecast import MergeForecast
from repsim.plots.appearance import GREY, LABEL, Look, Size, line_marker, width_of
from repsim.plots.colours import ColourScale
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing import matrix
from repsim.plots.drawing.rows import draw_point
from repsim.plots.names import number, short_codes, shortened
from repsim.plots.retention import MAX_ROWS, RetentionPoint, RetentionRow, retention_rows
from repsim.plots.selection import MeasureFacts
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where

#: Retention below this is drawn at the left edge, with an arrow: how far a merge is below unigrams
#: matters to nobody.
LEAST = -0.5
MAX_POOL = 40
_WORST = MeasureFacts(
    "retention", "retention, worst language", "similarity", None, 1.0, 1.0, True, None
)


def _caption_of_forecast(info: Numbers) -> str:
    best = info.rows[0]
    return (
        "Forecast of retention by language: 1 is what the best parent of that language "
        "reaches, 0 what counting tokens reaches. Bars are 90 % intervals; hollow markers are "
        f"known merges. {best.label}: worst language {number(best.worst)}."
    )


def forecast_info(forecasts: Sequence[MergeForecast]) -> Numbers:
    """Intervals of one forecast beside its nearest known merges, or of several ways to merge."""
    given = [one for one in forecasts if one.retention]
    if not given:
        raise UsageError(
            "there is no forecast to draw: it was refused",
            hint="; ".join(sorted({one.refusal for one in forecasts})) or None,
        )
    if len(given) > MAX_ROWS:
        raise UsageError(f"{len(given)} forecasts are more than {MAX_ROWS} rows")
    near = given[0].nearest if len(given) == 1 else ()
    languages = [language for one in given for language in one.retention]
    codes = short_codes([*languages, *(known.language for known in near)])
    several = len({one.models for one in given}) > 1
    rows = [_row(one, codes, several) for one in given]
    rows.sort(key=lambda row: -row.worst)
    known: dict[str, list[RetentionPoint]] = {}
    for merge in near:
        point = RetentionPoint(codes[merge.language], merge.kept)
        known.setdefault(merge.merge, []).append(point)
    rows += [RetentionRow(name, tuple(points), known=True) for name, points in known.items()]
    refused = len(forecasts) - len(given)
    made = "Forecast" if several else f"Forecast: {' + '.join(given[0].models)}"
    return Numbers(_caption_of_forecast,
        rows=tuple(rows),
        languages=tuple(dict.fromkeys(codes.values())),
        title=made,
        note=(
            "bars: 90 % interval", "shaded: collapse", *["hollow: known merges"] * bool(near),
            *[f"{refused} refused, not shown"] * bool(refused),
        ),
    )  # fmt: skip


def _row(one: MergeForecast, codes: dict[str, str], several: bool) -> RetentionRow:
    way = one.way if one.alignment == "none" else f"{one.way}, {one.alignment}"
    points = tuple(
        RetentionPoint(
            codes[language], kept.value,
            math.nan if kept.low is None else kept.low,
            math.nan if kept.high is None else kept.high,
        )
        for language, kept in one.retention.items()
    )  # fmt: skip
    return RetentionRow(f"{' + '.join(one.models)} ({way})" if several else way, points)


def draw_forecast(
    info: Numbers,
    *,
    ax: Where = None,
    size: Size = "medium",
    limits: tuple[float, float] | None = None,
) -> Drawing:
    """A row per merge, a marker per language."""
    highest = max(np.nanmax(point[1:]) for row in info.rows for point in row.points)
    ends, axis = (LEAST, max(1.05, highest + 0.05)), "retention (0 unigrams, 1 best parent)"
    axes, found = retention_rows(info, ax, size, ends, axis, letters=26, beside=1.8)
    for tick, row in zip(axes[0].get_yticklabels(), info.rows, strict=True):
        if row.known:
            tick.set_color(GREY)
    for place, row in enumerate(info.rows):
        _draw_row(axes[0], row, place, found)
    if limits is not None:
        axes[0].set_xlim(*limits)
    return fig.finish(axes)


def _draw_row(ax: Axes, row: RetentionRow, place: int, found: dict[str, Look]) -> None:
    """Languages of a row stand a little apart, so that their intervals do not cover each other."""
    apart = np.linspace(-0.17, 0.17, len(row.points)) if len(row.points) > 1 else np.zeros(1)
    for point, shift in zip(row.points, apart, strict=True):
        marker = line_marker(found[point.language], hollow=row.known, linestyle="")
        if point.value < LEAST:
            marker |= {"marker": "<", "clip_on": False}
        low, high = (float(np.maximum(end, LEAST)) for end in (point.low, point.high))
        draw_point(ax, place + shift, max(point.value, LEAST), (low, high), marker)


FORECAST = Figure("forecast", "forecasts", forecast_info, draw_forecast)


def _caption_of_forecast_matrix(info: Numbers) -> str:
    risk = info.risk[np.triu_indices(len(info.models), 1)]
    return (
        "Forecast retention of the worst language for every pair of the pool. "
        f"{'; '.join(info.note)}. {int((risk < COLLAPSE).sum())} of "
        f"{int(np.isfinite(risk).sum())} pairs are more likely to live than to "
        "collapse; hatched pairs were refused."
    )


def forecast_matrix_info(forecasts: Sequence[MergeForecast]) -> Numbers:
    """The matrix of a pool, out of forecasts of one method and alignment; only pairs are shown."""
    pairs = [one for one in forecasts if len(one.models) == 2]
    if not pairs:
        raise UsageError("there is no pair among the forecasts to draw a matrix of")
    ways = {(one.way, one.alignment) for one in pairs}
    if len(ways) > 1:
        raise UsageError("a matrix shows one method and alignment", hint="draw one for each")
    names = list(dict.fromkeys(name for one in pairs for name in one.models))
    if len(names) > MAX_POOL:
        raise UsageError(f"{len(names)} models are more than {MAX_POOL} rows")
    values, risk = (np.full((len(names), len(names)), np.nan) for _ in range(2))
    for one in pairs:
        i, j = (names.index(name) for name in one.models)
        if one.worst is not None:
            values[i, j] = values[j, i] = one.worst.value
        if one.p_collapse is not None:
            risk[i, j] = risk[j, i] = one.p_collapse
    method, alignment = ways.pop()
    refused = sum(1 for one in pairs if one.refusal)
    return Numbers(
        _caption_of_forecast_matrix,
        models=tuple(names),
        values=values,
        risk=risk,
        scale=ColourScale.of(_WORST, values, (0.0, 1.0)),
        title="Forecast of every pair",
        note=(
            f"{method}{'' if alignment == 'none' else f', {alignment} alignment'}",
            "strokes: more likely to collapse than not",
            *[f"hatched: {refused} refused"] * bool(refused),
        ),
    )


def draw_forecast_matrix(
    info: Numbers, *, ax: Where = None, size: Size = "medium", cmap: str | None = None
) -> Drawing:
    """Colour and hundredths are the worst language's retention."""
    info = info.replaced(scale=matrix.coloured(info.scale, cmap))
    count = len(info.models)
    side = min(width_of(size) - 2.2, 0.62 * count + 0.3)
    axes = fig.frames(info, ax, 1, 1, size, side + 1.0)
    said = matrix.in_words(info.values, info.models, info.models)
    image = matrix.draw_matrix(axes[0], info.values, info.scale, said)
    matrix.blank_diagonal(axes[0], count)
    names = [shortened(name, 18) for name in info.models]
    small: dict[str, Any] = {"fontsize": 7.5 if count <= 16 else 5.5}
    axes[0].set_xticks(range(count), names, rotation=90, **small)
    axes[0].set_yticks(range(count), names, **small)
    bar = matrix.add_colour_bar(image, axes, info.scale, _WORST, side)
    bar.set_label(_WORST.label, color=LABEL)
    fig.keep_left(axes, side + 2.2)
    figure = fig.finish(axes)
    matrix.align_colour_bar(bar, axes)
    _annotate(axes[0], info)
    return figure


def _annotate(ax: Axes, info: Numbers) -> None:
    """Retention in each cell; two strokes mark those that are more likely to collapse."""
    fontsize = matrix.size_in_cells(ax, len(info.models), 2.6)
    ink = matrix.ink_on(info.values, info.scale)
    for i, j in zip(*np.nonzero(np.isfinite(info.values)), strict=True):
        text = number(float(info.values[i, j]))
        options = {"ha": "center", "va": "center", "fontsize": fontsize, "color": ink[i, j]}
        ax.text(j, i, text, zorder=4, **options)
        if info.risk[i, j] > COLLAPSE:
            for sign in (-1, 1):
                ends = ([j + 0.24 * sign, j + 0.42 * sign], [i - 0.24 * sign, i - 0.42 * sign])
                ax.plot(*ends, color=ink[i, j], linewidth=0.9, zorder=3)


FORECAST_MATRIX = Figure("forecast_matrix", "forecasts", forecast_matrix_info, draw_forecast_matrix)
