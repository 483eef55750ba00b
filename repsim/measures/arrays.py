"""Statistics of two arrays, of two similarities, and of models of a kind."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from repsim.core import InputError, Measure, UsageError
from repsim.core.formatting import ShownAsTable
from repsim.measures.base import compute_grid, get_measure
from repsim.measures.beside import beside
from repsim.measures.cautions import document_cautions, statistics_cautions
from repsim.measures.documents import as_unit
from repsim.measures.features import Features, as_features
from repsim.measures.intervals import replicates_of
from repsim.measures.serial import serial_note
from repsim.measures.statistics import Statistics
from repsim.stats.bootstrap import interval_of, members_of, model_weights
from repsim.stats.intervals import jackknife_error

#: Draws of models and texts.
DRAWS = 2000
#: Fewest models of a kind that an interval over models is taken from.
LEAST_MODELS = 3


@dataclasses.dataclass(frozen=True)
class Similarity(ShownAsTable):
    """A value with what stands beside it (columns of a `SimilarityTable`); NaN where nothing is."""

    value: float
    measure: str
    n: int
    unit: str
    ci_low: float = math.nan
    ci_high: float = math.nan
    null_mean: float = math.nan
    null_q95: float = math.nan
    calibrated: float = math.nan
    p_value: float = math.nan
    partial: float = math.nan
    partial_ci_low: float = math.nan
    partial_ci_high: float = math.nan
    partial_null_q95: float = math.nan
    partial_p_value: float = math.nan
    across_halves: float = math.nan
    ceiling: float = math.nan
    null_method: str = ""
    note: str = ""

    def __float__(self) -> float:
        return self.value


@dataclasses.dataclass(frozen=True)
class Difference(ShownAsTable):
    """First similarity minus second, with interval and two-sided p of no difference."""

    value: float
    low: float
    high: float
    p_value: float
    first: float
    second: float
    unit: str


@dataclasses.dataclass(frozen=True)
class OverModels(ShownAsTable):
    """Mean similarity of two kinds of models, with an interval for other models and other texts."""

    value: float
    low: float
    high: float
    models: int
    unit: str


def assess(
    x: Any,
    y: Any,
    name: str | Measure = "cka",
    *,
    documents: Sequence[Any] = (),
    covariates: Any = None,
    statistics: Statistics | None = None,
    **params: Any,
) -> Similarity:
    """A measure of two arrays with null, interval, partial value and ceiling.

    Args:
        x: `[n, d1]`.
        y: `[n, d2]`, same rows.
        name: Name of a measure, or the measure.
        documents: Document of each row, `[n]`: the unit of null and interval.
        covariates: `[n]` or `[n, c]`, to be regressed out for `partial`.
        statistics: Shuffles, groups, level, seed; `Statistics()` if left out.
        **params: Parameters of the measure.

    Raises:
        UsageError: Unknown measure or parameter.
        InputError: Malformed arrays, or another number of documents than of rows.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(120, 8))
        >>> found = assess(x, x + rng.normal(size=x.shape), documents=np.arange(120) // 4)
        >>> found.ci_low < float(found) < found.ci_high, found.p_value < 0.05, found.unit
        (True, True, 'document')
    """
    chosen = get_measure(name).with_params(**params)
    wanted = dataclasses.replace(statistics or Statistics(), thorough_partial=True)
    (left, right), note = _sides((x, y), documents if wanted.unit == "document" else ())
    values = compute_grid(chosen, [left], [right])
    free = None
    if covariates is not None:
        free = ([left.residualised(covariates)], [right.residualised(covariates)])
    tested = np.ones((1, 1), dtype=bool)
    columns, found = beside(chosen, [left], [right], values, wanted, tested=tested, free=free)
    notes = [note]
    if left.documents is None:
        notes.append(serial_note(left, right))
    if wanted.groups and np.isfinite(values).all():
        ends = None if found is None else np.concatenate([found.low, found.high])
        notes += statistics_cautions(chosen, left, ends)
    if wanted.permutations and left.documents is not None:
        notes += document_cautions(chosen, left.documents.cpu().numpy())
    columns.pop("p_adjusted", None)
    numbers = {name: array.item(0, 0) for name, array in columns.items()}
    note = "; ".join(filter(None, notes))
    return Similarity(float(values[0, 0]), chosen.name, left.n, _unit(left), note=note, **numbers)


def difference(
    first: tuple[Any, Any],
    second: tuple[Any, Any],
    name: str | Measure = "cka",
    *,
    documents: Sequence[Any] = (),
    level: float = 0.95,
    groups: int = 20,
    seed: int = 0,
    **params: Any,
) -> Difference:
    """How much more alike the first two sides are than the second two: A-B against A-C.

    All four arrays have the same rows, and each unit is left out of both similarities at once: what
    they share cancels, so that the interval is narrower than two intervals let one think.

    Args:
        first: Two `[n, d]` arrays.
        second: Two more, or one of the first two and another (before against after).
        name: Name of a measure, or the measure.
        documents: Document of each row, `[n]`.
        level: Nominal coverage.
        groups: Groups that are left out where the measure has no closed form.
        seed: Seed of the groups.
        **params: Parameters of the measure.

    Raises:
        UsageError: Unknown measure, or one without a valid interval.
        InputError: Different numbers of rows, or too few units.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(200, 8))
        >>> near, far = x + 0.5 * rng.normal(size=x.shape), x + 2 * rng.normal(size=x.shape)
        >>> found = difference((x, near), (x, far))
        >>> found.low > 0, found.p_value < 0.01
        (True, True)
    """
    chosen = _with_interval(name, params)
    sides, _ = _sides((*first, *second), documents)
    values = [float(compute_grid(chosen, [x], [y])[0, 0]) for x, y in (sides[:2], sides[2:])]
    replicates = [
        replicates_of(chosen, [x], [y], groups, seed)[0][:, 0, 0] for x, y in (sides[:2], sides[2:])
    ]
    gap, gaps = values[0] - values[1], replicates[0] - replicates[1]
    error, reach = (float(number) for number in jackknife_error(gaps, level))
    p = float(2 * stats.t.sf(abs(gap) / error, len(gaps) - 1)) if error > 0 else float(gap == 0)
    return Difference(gap, gap - reach, gap + reach, p, values[0], values[1], _unit(sides[0]))


def between_models(
    xs: Sequence[Any],
    ys: Sequence[Any],
    name: str | Measure = "cka",
    *,
    documents: Sequence[Any] = (),
    level: float = 0.95,
    groups: int = 20,
    draws: int = DRAWS,
    seed: int = 0,
    **params: Any,
) -> OverModels:
    """Mean similarity of two kinds of models, for other models of the kinds *and* other texts.

    Models of each side and units of text are drawn with replacement at once (crossed resampling,
    Owen 2007, "The pigeonhole bootstrap"). A drawn text counts through what leaving it out changes
    (the infinitesimal form), so that no row is repeated inside a measure.

    Args:
        xs: Models of one kind, each `[n, d]` on the same rows.
        ys: Models of the other kind.
        name: Name of a measure, or the measure.
        documents: Document of each row, `[n]`.
        level: Nominal coverage.
        groups: Groups of text that are left out where the measure has no closed form.
        draws: Number of draws.
        seed: Seed.
        **params: Parameters of the measure.

    Raises:
        UsageError: Unknown measure, one without a valid interval, or under 3 models of a kind.
        InputError: Different numbers of rows, or too few units of text.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(100, 6))
        >>> xs, ys = ([x + s * rng.normal(size=x.shape) for _ in range(4)] for s in (0.5, 1.0))
        >>> found = between_models(xs, ys)
        >>> found.low < found.value < found.high, found.models
        (True, 8)
    """
    chosen = _with_interval(name, params)
    if min(len(xs), len(ys)) < LEAST_MODELS:
        raise UsageError(
            f"{len(xs)} and {len(ys)} models: too few to speak of others of their kind",
            hint=f"give {LEAST_MODELS} or more of each kind",
        )
    sides, _ = _sides((*xs, *ys), documents)
    left, right = sides[: len(xs)], sides[len(xs) :]
    values = compute_grid(chosen, left, right)
    replicates = replicates_of(chosen, left, right, groups, seed)[0]
    units = len(replicates)
    influence = (units - 1) * (replicates.mean(axis=0) - replicates)
    generator = np.random.default_rng(seed)
    texts = generator.multinomial(units, [1 / units] * units, size=draws)
    shifted = values + np.tensordot(texts - 1, influence, axes=1) / units
    drawn = [
        model_weights(members_of([(str(i),) for i in range(len(kind))]), draws=draws, seed=seed + k)
        for k, kind in enumerate((xs, ys))
    ]
    weights = drawn[0][:, :, None] * drawn[1][:, None, :]
    means = (weights * shifted).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))
    low, high = interval_of(means, level)
    return OverModels(float(values.mean()), low, high, len(sides), _unit(sides[0]))


def _with_interval(name: str | Measure, params: Mapping[str, Any]) -> Measure:
    chosen = get_measure(name).with_params(**params)
    if chosen.no_interval:
        raise UsageError(f"'{chosen.name}' has no interval: {chosen.no_interval}", hint="use cka")
    return chosen


def _sides(arrays: Sequence[Any], documents: Sequence[Any]) -> tuple[list[Features], str]:
    """Features of arrays with the same rows, and why their documents are not the unit."""
    sides = [as_features(array) for array in arrays]
    for side in sides:
        if side.n != sides[0].n or len(documents) not in (0, side.n):
            raise InputError(
                f"{sides[0].n} and {side.n} rows, {len(documents) or 'no'} documents",
                hint="row i of all arrays, and document i, belong to one sentence",
            )
    labels, note = as_unit(documents)
    if labels is not None:
        known = {id(s): Features(s.x, dtype=s.dtype, documents=labels) for s in sides}
        sides = [known[id(side)] for side in sides]
    return sides, note


def _unit(side: Features) -> str:
    return "sentence" if side.documents is None else "document"
