"""Forecasts of merges: retention with intervals, and the matrix of a pool of models."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.forecast import MergeForecast
from repsim.plots.appearance import Size
from repsim.plots.colours import ColourScale
from repsim.plots.names import number, short_codes
from repsim.plots.retention import COLLAPSE, MAX_ROWS, RetentionPoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Retention below this is drawn at the left edge, with an arrow: how far a merge is below unigrams
#: matters to nobody.
LEAST = -0.5
MAX_POOL = 40


@dataclasses.dataclass(frozen=True)
class ForecastRow:
    """One merge: what is foretold of it, or what a known one kept.

    Attributes:
        label: Name.
        points: By language.
        known: Whether it is a merge that was made and measured.
    """

    label: str
    points: tuple[RetentionPoint, ...]
    known: bool


@dataclasses.dataclass(frozen=True)
class ForecastData:
    """Everything that the figure of intervals shows.

    Attributes:
        rows: Forecasts, the best first, then the nearest known merges of a single one.
        languages: Short codes in the order of the colours.
        title, note: Heading, and pieces of the grey line.
    """

    rows: tuple[ForecastRow, ...]
    languages: tuple[str, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and the best."""
        best = self.rows[0]
        worst = min(point.value for point in best.points)
        return (
            "Forecast of retention by language: 1 is what the best parent of that language "
            "reaches, 0 what counting tokens reaches. Bars are 90 % intervals; hollow markers are "
            f"known merges. {best.label}: worst language {number(worst)}."
        )


def prepare_forecast(
    forecasts: Sequence[MergeForecast], *, title: str | None = None
) -> ForecastData:
    """Intervals of one forecast beside its nearest known merges, or of several ways to merge.

    Args:
        forecasts: Of the same models; refused ones are left out, and counted in the note.
        title: Heading instead of the one that is made.

    Raises:
        UsageError: All were refused, or there are more than 40.

    Example:
        >>> from repsim.testing.predictors import planted_forecast
        >>> [row.label for row in prepare_forecast([planted_forecast()]).rows]
        ['linear', 'known']
    """
    given = [found for found in forecasts if found.retention]
    if not given:
        raise UsageError(
            "there is no forecast to draw: it was refused",
            hint="; ".join(sorted({found.refusal for found in forecasts})) or None,
        )
    if len(given) > MAX_ROWS:
        raise UsageError(f"{len(given)} forecasts are more than {MAX_ROWS} rows")
    spoken = [language for found in given for language in found.retention]
    near = given[0].nearest if len(given) == 1 else ()
    codes = short_codes([*spoken, *(known.language for known in near)])
    ordered = sorted(given, key=lambda found: -_worst(found))
    several = len({found.models for found in given}) > 1
    rows = [_row(found, codes, several) for found in ordered]
    for name in dict.fromkeys(known.merge for known in near):
        points = tuple(
            RetentionPoint(codes[known.language], known.retention, math.nan, math.nan)
            for known in near
            if known.merge == name
        )
        rows.append(ForecastRow(name, points, known=True))
    note = ["bars: 90 % interval", "shaded: collapse"]
    if near:
        note.append("hollow: known merges")
    if len(given) < len(forecasts):
        note.append(f"{len(forecasts) - len(given)} refused, not shown")
    made = "Forecast" if several else f"Forecast: {' + '.join(given[0].models)}"
    return ForecastData(
        rows=tuple(rows),
        languages=tuple(dict.fromkeys(codes.values())),
        title=title if title is not None else made,
        note=tuple(note),
    )


def _worst(found: MergeForecast) -> float:
    return min(kept.value for kept in found.retention.values())


def _row(found: MergeForecast, codes: dict[str, str], several: bool) -> ForecastRow:
    way = found.method if found.alignment == "none" else f"{found.method}, {found.alignment}"
    points = tuple(
        RetentionPoint(
            codes[language],
            kept.value,
            math.nan if kept.low is None else kept.low,
            math.nan if kept.high is None else kept.high,
        )
        for language, kept in found.retention.items()
    )
    label = f"{' + '.join(found.models)} ({way})" if several else way
    return ForecastRow(label, points, known=False)


def plot_forecast(
    forecasts: Sequence[MergeForecast], *, size: Size = "medium", title: str | None = None
) -> Figure:
    """Draw intervals; arguments as for `prepare_forecast`."""
    from repsim.plots.drawing.forecast import draw_forecast

    return draw_forecast(prepare_forecast(forecasts, title=title), size=size)


@dataclasses.dataclass(frozen=True)
class ForecastMatrixData:
    """Everything that the matrix of a pool shows.

    Attributes:
        models: Names of rows and columns.
        values: `[n, n]` retention of the worst language, NaN where it was refused and on the
            diagonal.
        risk: `[n, n]` probability of collapse.
        scale: Colours, 0 to 1.
        title, note: Heading, and pieces of the grey line.
    """

    models: tuple[str, ...]
    values: np.ndarray
    risk: np.ndarray
    scale: ColourScale
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and which pairs are forecast to live."""
        pairs = np.triu(np.ones_like(self.risk, dtype=bool), 1)
        alive = int((self.risk[pairs] < COLLAPSE).sum())
        asked = int(np.isfinite(self.risk[pairs]).sum())
        return (
            "Forecast retention of the worst language for every pair of the pool. "
            f"{'; '.join(self.note)}. {alive} of {asked} pairs are more likely to live than to "
            "collapse; hatched pairs were refused."
        )


def prepare_forecast_matrix(
    forecasts: Sequence[MergeForecast], *, title: str | None = None
) -> ForecastMatrixData:
    """The matrix of a pool, out of forecasts of one method and alignment; only pairs are shown.

    Args:
        forecasts: Of pairs, and perhaps of larger combinations.
        title: Heading instead of the one that is made.

    Raises:
        UsageError: No pair among them, several methods or alignments, or more than 40 models.

    Example:
        >>> from repsim.testing.predictors import planted_forecast
        >>> prepare_forecast_matrix([planted_forecast()]).values.tolist()
        [[nan, 0.9], [0.9, nan]]
    """
    pairs = [found for found in forecasts if len(found.models) == 2]
    if not pairs:
        raise UsageError("there is no pair among the forecasts to draw a matrix of")
    ways = {(found.method, found.alignment) for found in pairs}
    if len(ways) > 1:
        raise UsageError("a matrix shows one method and alignment", hint="draw one for each")
    names = list(dict.fromkeys(name for found in pairs for name in found.models))
    if len(names) > MAX_POOL:
        raise UsageError(f"{len(names)} models are more than {MAX_POOL} rows")
    values, risk = (np.full((len(names), len(names)), np.nan) for _ in range(2))
    for found in pairs:
        i, j = (names.index(name) for name in found.models)
        if found.worst is not None:
            values[i, j] = values[j, i] = found.worst.value
        if found.p_collapse is not None:
            risk[i, j] = risk[j, i] = found.p_collapse
    known = np.triu(np.isfinite(values), 1)
    below = int((values[known] < 0).sum())
    above = int((values[known] > 1).sum())
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}
    method, alignment = ways.pop()
    note = [f"{method}{'' if alignment == 'none' else f', {alignment} alignment'}"]
    note += ["strokes: more likely to collapse than not"]
    refused = sum(1 for found in pairs if found.refusal)
    note += [f"hatched: {refused} refused"] if refused else []
    return ForecastMatrixData(
        models=tuple(names),
        values=values,
        risk=risk,
        scale=ColourScale("magma", 0.0, 1.0, extend[bool(below), bool(above)], ""),
        title=title if title is not None else "Forecast of every pair",
        note=tuple(note),
    )


def plot_forecast_matrix(
    forecasts: Sequence[MergeForecast], *, size: Size = "medium", title: str | None = None
) -> Figure:
    """Draw the matrix; arguments as for `prepare_forecast_matrix`."""
    from repsim.plots.drawing.forecast import draw_forecast_matrix

    return draw_forecast_matrix(prepare_forecast_matrix(forecasts, title=title), size=size)
