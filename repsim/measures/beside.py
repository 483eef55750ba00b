"""What stands beside the values of a grid: null, interval, partial value with both, ceiling."""

from __future__ import annotations

import dataclasses

import numpy as np

from repsim.core import Measure
from repsim.measures.base import compute_grid
from repsim.measures.cautions import MOST_STAYING
from repsim.measures.ceiling import ceiling
from repsim.measures.documents import some_documents, staying
from repsim.measures.features import Mask, Side
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

#: What of a null stands in a table.
NULL_COLUMNS = ("null_mean", "null_q95", "calibrated", "p_value", "p_adjusted")


def beside(
    measure: Measure,
    xs: Side,
    ys: Side,
    values: np.ndarray,
    statistics: Statistics,
    *,
    tested: np.ndarray,
    free: tuple[Side, Side] | None = None,
) -> tuple[dict[str, np.ndarray], Interval | None]:
    """Everything beside the values of one measure, by column of the table, and the interval.

    Of the cells that are `tested`; `free` are both sides without their covariates.
    """
    grid = _Grid(measure, xs, ys, statistics, tested)
    null, found = grid.null_and_interval(np.where(tested, values, np.nan))
    columns: dict[str, np.ndarray] = {}
    if null is not None:
        columns |= {name: getattr(null, name.removeprefix("null_")) for name in NULL_COLUMNS}
        columns["null_method"] = np.full(values.shape, null.method, dtype=object)
    if found is not None:
        columns |= {"ci_low": found.low, "ci_high": found.high}
    if free is not None:
        columns |= _partial(_Grid(measure, *free, statistics, tested))
    if statistics.ceiling:
        columns |= ceiling(measure, xs, ys, tested, statistics.seed)
    return columns, found


@dataclasses.dataclass(frozen=True)
class _Grid:
    """Layers of two sides, what is wanted of them, and in which cells."""

    measure: Measure
    xs: Side
    ys: Side
    statistics: Statistics
    tested: np.ndarray

    def null_and_interval(self, values: np.ndarray) -> tuple[Null | None, Interval | None]:
        """Both, or None where they are not wanted, not valid, or there are too few units."""
        measure, statistics, known = self.measure, self.statistics, self.xs[0].documents
        count, by_document = statistics.shuffles(measure), measure.by_document
        if known is None or by_document is None or not count:
            return self._null(values) if count else None, self._interval(values)
        labels = known.cpu().numpy()
        units, scale = int(labels.max()) + 1, 1.0
        whole = measure.matrix is None or len(labels) <= MOST_PAIRED
        left, right = self.xs, self.ys
        if not whole:
            rows, scale = some_documents(labels, MOST_PAIRED, statistics.seed)
            left, right = ([f.take(rows) for f in side] for side in (self.xs, self.ys))
        signs = draw_signs(units, count, statistics.seed)

        def both(a: Side, b: Side, mask: Mask) -> np.ndarray:
            return np.concatenate(by_document(a, b, signs, mask, **measure.params))

        found = in_blocks(measure, both, left, right, self.tested)
        null = summarise(measure, values, scale * found[:count], "draws of signs of documents")
        if not whole:
            return null, self._interval(values)
        if units < LEAST_GROUPS or not statistics.groups:
            return null, None
        method = "delete-one-document jackknife"
        return null, from_replicates(measure, values, found[count:], statistics.level, method)

    def _null(self, values: np.ndarray) -> Null | None:
        measure, xs, ys = self.measure, self.xs, self.ys
        if measure.moments is not None and xs[0].documents is None:
            moments = measure.moments(xs, ys, **measure.params)
            return from_moments(measure, np.where(self.tested, values, np.nan), moments)
        labels = None if xs[0].documents is None else xs[0].documents.cpu().numpy()
        if labels is not None and staying(labels)[1] > MOST_STAYING:
            return None
        count, run_on = self.statistics.shuffles(measure), runs_on(xs[-1], ys[-1])
        orders = draw_permutations(xs[0].n, count, self.statistics.seed, labels, run_on=run_on)
        return permutation_null(measure, xs, ys, values, orders, self.tested)

    def _interval(self, values: np.ndarray) -> Interval | None:
        measure, xs, statistics = self.measure, self.xs, self.statistics
        n, known = xs[0].n, xs[0].documents
        units = n // 2 if known is None else int(known.max()) + 1
        groups = min(statistics.left_out(measure), units)
        if groups < LEAST_GROUPS or n * (groups - 1) // groups < measure.min_samples:
            return None
        return interval(
            measure, xs, self.ys, values, level=statistics.level, groups=groups,
            seed=statistics.seed, mask=self.tested,
        )  # fmt: skip


def _partial(grid: _Grid) -> dict[str, np.ndarray]:
    """The value without covariates; its null and interval where they are cheap, or asked for."""
    partial = compute_grid(grid.measure, grid.xs, grid.ys, grid.tested)
    columns = {"partial": partial}
    if grid.measure.left_out is None and not grid.statistics.thorough_partial:
        return columns
    null, found = grid.null_and_interval(partial)
    if null is not None:
        columns |= {"partial_null_q95": null.q95, "partial_p_value": null.p_value}
    if found is not None:
        columns |= {"partial_ci_low": found.low, "partial_ci_high": found.high}
    return columns
