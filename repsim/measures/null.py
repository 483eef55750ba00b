"""What a measure says when the sentences of one side are shuffled: the permutation null.

A similarity without its null cannot be read: biased linear CKA of two unrelated sets of white
activations is d / (n + d). One permutation is applied to all layers of the pair, so that the
largest value over all layer pairs has a null too (Westfall and Young 1993). Where rows come from
documents, whole documents change places: shuffled one by one, the rows of documents that hang
together reject a true null in most cases. Documents of different length are not exchangeable;
where a measure is a sum over documents or pairs of them (`flipped`), signs of documents are drawn
instead, and signs of rows where matrices over all pairs of rows are too large to be shuffled.

Reference: Gröger, Wen, Brbić 2026 (arXiv 2602.14486) for calibration against a permutation null.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from repsim.core import Measure, UsageError
from repsim.measures.base import compute_grid
from repsim.measures.documents import shuffled_documents
from repsim.measures.features import Features
from repsim.measures.layer_blocks import in_blocks
from repsim.measures.pair_matrices import shuffled_products

#: Fewer permutations than this, and the 95 % quantile is that of a normal distribution with the
#: null's mean and standard deviation: the second largest of 20 values is no estimate of a quantile.
LEAST_FOR_QUANTILE = 40
NORMAL_Q95 = 1.6448536269514722
#: Up to so many rows matrices over pairs of them are shuffled whole.
MOST_SHUFFLED = 10_000


@dataclasses.dataclass(frozen=True)
class Null:
    """The null of a grid; arrays are `[layers of A, layers of B]`, NaN where not computed."""

    mean: np.ndarray
    q95: np.ndarray
    calibrated: np.ndarray
    p_value: np.ndarray
    p_adjusted: np.ndarray
    permutations: int
    quantile: str


def draw_permutations(
    n: int, count: int, seed: int, labels: np.ndarray | None = None
) -> np.ndarray:
    """`count` permutations of `n` rows, or of whole documents by their `labels`, `[count, n]`."""
    generator = np.random.default_rng([seed, n])
    if not count:
        return np.empty((0, n), dtype=np.int64)
    if labels is None:
        return np.stack([generator.permutation(n) for _ in range(count)])
    return np.stack([shuffled_documents(labels, generator) for _ in range(count)])


def flips_rows(measure: Measure, n: int) -> bool:
    """Whether rows change sign instead of place: shuffled matrices over pairs would not fit."""
    return measure.flipped is not None and measure.matrix is not None and n > MOST_SHUFFLED


def draw_signs(units: int, count: int, seed: int) -> np.ndarray:
    """Random signs of the units, `[count, units]`."""
    return np.random.default_rng([seed, units]).choice([-1.0, 1.0], size=(count, units))


def permutation_null(
    measure: Measure,
    xs: Sequence[Features],
    ys: Sequence[Features],
    values: np.ndarray,
    permutations: np.ndarray,
    mask: np.ndarray | None = None,
) -> Null:
    """Shuffle the rows of all layers of B together and summarise what the measure then says."""
    return summarise(measure, values, null_values(measure, xs, ys, permutations, mask))


def null_values(
    measure: Measure,
    xs: Sequence[Features],
    ys: Sequence[Features],
    permutations: np.ndarray,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """The measure under each permutation, `[count, len(xs), len(ys)]`, by its fastest form."""
    if len(permutations) == 0:
        raise UsageError("a null needs at least one permutation", hint="permutations=100")
    if measure.matrix is not None:
        products = shuffled_products(measure.matrix, xs, ys, permutations)
        return products if mask is None else np.where(mask, products, np.nan)
    if measure.shuffled is not None:
        shuffled = functools.partial(measure.shuffled, **measure.params)
        return in_blocks(measure, lambda a, b, m: shuffled(a, b, permutations, m), xs, ys, mask)

    def rounds(a: Sequence[Features], b: Sequence[Features], m: np.ndarray | None) -> np.ndarray:
        orders = ([y.permuted(order) for y in b] for order in permutations)
        return np.stack([compute_grid(measure, a, shuffled, m) for shuffled in orders])

    return in_blocks(measure, rounds, xs, ys, mask)


def summarise(measure: Measure, values: np.ndarray, null: np.ndarray) -> Null:
    """Summary of null values `[count, La, Lb]` for the observed `[La, Lb]`; see `Null`."""
    count = len(null)
    sign = 1.0 if measure.direction == "similarity" else -1.0
    computed = np.isfinite(values) & np.isfinite(null).all(axis=0)
    null = np.where(computed, null, np.nan)
    mean = null.mean(axis=0)
    if count >= LEAST_FOR_QUANTILE:
        quantile = "empirical"
        q95 = np.quantile(null, 0.95 if sign > 0 else 0.05, axis=0)
    else:
        quantile = "normal"
        q95 = mean + sign * NORMAL_Q95 * null.std(axis=0, ddof=1) if count > 1 else mean * np.nan
    # A rounding error must not turn "equal" into "less similar": identical values count.
    observed = sign * values - 1e-12 * np.abs(values)
    oriented = sign * null
    reached = (oriented >= observed).sum(axis=0)
    best = np.where(computed, oriented, -np.inf).max(axis=(1, 2))
    reached_by_best = (best[:, None, None] >= observed).sum(axis=0)
    return Null(
        mean=mean,
        q95=q95,
        calibrated=_calibrated(measure, values, q95),
        p_value=np.where(computed, (1 + reached) / (1 + count), np.nan),
        p_adjusted=np.where(computed, (1 + reached_by_best) / (1 + count), np.nan),
        permutations=count,
        quantile=quantile,
    )


def _calibrated(measure: Measure, values: np.ndarray, q95: np.ndarray) -> np.ndarray:
    """0 at the null's quantile, 1 on identical input; NaN where the null is at the ceiling."""
    span = measure.identity_value - q95
    usable = np.abs(span) > 1e-6 * max(1.0, abs(measure.identity_value))
    return np.divide(values - q95, span, out=np.full_like(values, np.nan), where=usable)
