"""What stands beside the values of a grid: null, interval, partial value with both, ceiling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repsim.core import Measure
from repsim.measures.base import compute_grid
from repsim.measures.cautions import MOST_STAYING
from repsim.measures.ceiling import ceiling
from repsim.measures.documents import some_documents, staying
from repsim.measures.features import Features
from repsim.measures.intervals import LEAST_GROUPS, Interval, from_replicates, interval
from repsim.measures.layer_blocks import in_blocks
from repsim.measures.null import (
    MOST_PAIRED,
    Null,
    draw_permutations,
    draw_signs,
    from_moments,
    permutation_null,
    summarise,
)
from repsim.measures.serial import runs_on
from repsim.measures.statistics import Statistics

Layers = Sequence[Features]

#: What of a null stands in a table.
NULL_COLUMNS = ("null_mean", "null_q95", "calibrated", "p_value", "p_adjusted")


def beside(
    measure: Measure,
    xs: Layers,
    ys: Layers,
    values: np.ndarray,
    statistics: Statistics,
    *,
    tested: np.ndarray,
    free: tuple[Layers, Layers] | None = None,
) -> tuple[dict[str, np.ndarray], Interval | None]:
    """Everything beside the values of one measure, by column of the table, and the interval.

    Args:
        measure: The measure.
        xs: Layers of one side; their documents, where they know them, are the unit.
        ys: Layers of the other.
        values: `[len(xs), len(ys)]`.
        statistics: What is wanted.
        tested: Boolean `[len(xs), len(ys)]`: the cells that get it.
        free: Both sides without their covariates.
    """
    inside = np.where(tested, values, np.nan)
    null, found = _null_and_interval(measure, xs, ys, inside, statistics, tested)
    columns: dict[str, np.ndarray] = {}
    if null is not None:
        columns |= {name: getattr(null, name.removeprefix("null_")) for name in NULL_COLUMNS}
        columns["null_method"] = np.full(values.shape, null.method, dtype=object)
    if found is not None:
        columns |= {"ci_low": found.low, "ci_high": found.high}
    if free is not None:
        columns |= _partial(measure, free, statistics, tested)
    if statistics.ceiling:
        columns |= ceiling(measure, xs, ys, tested, statistics.seed)
    return columns, found


def _partial(
    measure: Measure, free: tuple[Layers, Layers], statistics: Statistics, tested: np.ndarray
) -> dict[str, np.ndarray]:
    """The value without covariates; its null and interval where they are cheap, or asked for."""
    partial = compute_grid(measure, *free, tested)
    columns = {"partial": partial}
    if measure.left_out is None and not statistics.thorough_partial:
        return columns
    null, found = _null_and_interval(measure, *free, partial, statistics, tested)
    if null is not None:
        columns |= {"partial_null_q95": null.q95, "partial_p_value": null.p_value}
    if found is not None:
        columns |= {"partial_ci_low": found.low, "partial_ci_high": found.high}
    return columns


def _null_and_interval(
    measure: Measure, xs: Layers, ys: Layers, values: np.ndarray, statistics: Statistics,
    tested: np.ndarray,
) -> tuple[Null | None, Interval | None]:  # fmt: skip
    """Both, or None where they are not wanted, not valid, or there are too few units."""
    count, known = statistics.shuffles(measure), xs[0].documents
    by_document = measure.by_document
    if known is None or by_document is None or not count:
        null = _null(measure, xs, ys, values, statistics, tested) if count else None
        return null, _interval(measure, xs, ys, values, statistics, tested)
    labels = known.cpu().numpy()
    units, scale = int(labels.max()) + 1, 1.0
    whole = measure.matrix is None or len(labels) <= MOST_PAIRED
    left, right = xs, ys
    if not whole:
        rows, scale = some_documents(labels, MOST_PAIRED, statistics.seed)
        left, right = ([f.take(rows) for f in side] for side in (xs, ys))
    signs = draw_signs(units, count, statistics.seed)

    def both(a: Layers, b: Layers, mask: np.ndarray | None) -> np.ndarray:
        return np.concatenate(by_document(a, b, signs, mask, **measure.params))

    found = in_blocks(measure, both, left, right, tested)
    null = summarise(measure, values, scale * found[:count], "draws of signs of documents")
    if not whole:
        return null, _interval(measure, xs, ys, values, statistics, tested)
    if units < LEAST_GROUPS or not statistics.groups:
        return null, None
    method = "delete-one-document jackknife"
    return null, from_replicates(measure, values, found[count:], statistics.level, method)


def _null(
    measure: Measure, xs: Layers, ys: Layers, values: np.ndarray, statistics: Statistics,
    tested: np.ndarray,
) -> Null | None:  # fmt: skip
    if measure.moments is not None and xs[0].documents is None:
        moments = measure.moments(xs, ys, **measure.params)
        return from_moments(measure, np.where(tested, values, np.nan), moments)
    labels = None if xs[0].documents is None else xs[0].documents.cpu().numpy()
    if labels is not None and staying(labels)[1] > MOST_STAYING:
        return None
    orders = draw_permutations(
        xs[0].n, statistics.shuffles(measure), statistics.seed, labels,
        run_on=runs_on(xs[-1], ys[-1]),
    )  # fmt: skip
    return permutation_null(measure, xs, ys, values, orders, tested)


def _interval(
    measure: Measure, xs: Layers, ys: Layers, values: np.ndarray, statistics: Statistics,
    tested: np.ndarray,
) -> Interval | None:  # fmt: skip
    n, known = xs[0].n, xs[0].documents
    units = n // 2 if known is None else int(known.max()) + 1
    groups = min(statistics.left_out(measure), units)
    if groups < LEAST_GROUPS or n * (groups - 1) // groups < measure.min_samples:
        return None
    return interval(
        measure, xs, ys, values, level=statistics.level, groups=groups, seed=statistics.seed,
        mask=tested,
    )  # fmt: skip
