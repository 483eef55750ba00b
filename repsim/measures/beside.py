"""What stands beside the values of a grid: null, interval, partial value with both, ceiling."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from repsim.core import Measure
from repsim.measures.base import compute_grid
from repsim.measures.ceiling import ceiling
from repsim.measures.features import Features
from repsim.measures.intervals import LEAST_GROUPS, Interval, interval
from repsim.measures.layer_blocks import in_blocks
from repsim.measures.null import (
    draw_permutations,
    draw_signs,
    flips_rows,
    permutation_null,
    summarise,
)
from repsim.measures.plan import Statistics

Layers = Sequence[Features]


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
    columns = _null(measure, xs, ys, inside, statistics, tested)
    found = _interval(measure, xs, ys, inside, statistics, tested)
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
    null = _null(measure, *free, partial, statistics, tested)
    columns |= {f"partial_{name}": null[name] for name in ("null_q95", "p_value") if name in null}
    found = _interval(measure, *free, partial, statistics, tested)
    if found is not None:
        columns |= {"partial_ci_low": found.low, "partial_ci_high": found.high}
    return columns


def _null(
    measure: Measure, xs: Layers, ys: Layers, values: np.ndarray, statistics: Statistics,
    tested: np.ndarray,
) -> dict[str, np.ndarray]:  # fmt: skip
    count, known = statistics.shuffles(measure), xs[0].documents
    if count == 0:
        return {}
    labels = None if known is None else known.cpu().numpy()
    units = xs[0].n if labels is None else int(labels.max()) + 1
    if measure.flipped is not None and (labels is not None or flips_rows(measure, units)):
        signs = draw_signs(units, count, statistics.seed)
        flipped = functools.partial(measure.flipped, **measure.params)
        drawn = in_blocks(measure, lambda a, b, m: flipped(a, b, signs, m), xs, ys, tested)
        null = summarise(measure, values, drawn)
    else:
        orders = draw_permutations(xs[0].n, count, statistics.seed, labels)
        null = permutation_null(measure, xs, ys, values, orders, tested)
    return {
        "null_mean": null.mean,
        "null_q95": null.q95,
        "calibrated": null.calibrated,
        "p_value": null.p_value,
        "p_adjusted": null.p_adjusted,
    }


def _interval(
    measure: Measure, xs: Layers, ys: Layers, values: np.ndarray, statistics: Statistics,
    tested: np.ndarray,
) -> Interval | None:  # fmt: skip
    """Intervals, or None where they are not wanted, not valid, or there are too few units."""
    n, known = xs[0].n, xs[0].documents
    units = n // 2 if known is None else int(known.max()) + 1
    groups = min(statistics.left_out(measure), units)
    if groups < LEAST_GROUPS or n * (groups - 1) // groups < measure.min_samples:
        return None
    return interval(
        measure, xs, ys, values, level=statistics.level, groups=groups, seed=statistics.seed,
        mask=tested,
    )  # fmt: skip
