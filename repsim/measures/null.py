"""What a measure says when the sentences of one side are shuffled: the permutation null.

A similarity without its null cannot be read: biased linear CKA of two unrelated sets of white
activations is d / (n + d), which is 0.43 at n = 1012 and d = 768. Here the rows of one side are
permuted, so that each side keeps its own geometry and only the matching of sentences is lost.

One permutation is applied to all layers of the pair, so that the largest value over all layer pairs
has a null too (Westfall and Young 1993): whoever reports the best of 169 layer pairs compares it
with the best of 169 shuffled ones.

Rows are permuted one by one, also where sentences come in documents. That breaks dependence within
documents along with the matching, so for a corpus of few long documents the null is somewhat too
narrow; whole documents cannot be exchanged because their lengths differ. The interval can be taken
over documents (`intervals`) and is what to look at there.

Reference: Gröger, Wen, Brbić 2026 (arXiv 2602.14486) for calibration against a permutation null.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from repsim.core import Measure, UsageError
from repsim.measures.base import ALIASES
from repsim.measures.cells import evaluate
from repsim.measures.correlation import shuffled_unit_correlations
from repsim.measures.pair_matrices import pair_matrix, shuffled_products

if TYPE_CHECKING:
    from repsim.measures.features import Features

#: Fewer permutations than this, and the 95 % quantile is that of a normal distribution with the
#: null's mean and standard deviation: the second largest of 20 values is no estimate of a quantile.
LEAST_FOR_QUANTILE = 40
NORMAL_Q95 = 1.6448536269514722


@dataclasses.dataclass(frozen=True)
class Null:
    """The null of a grid; arrays are `[layers of A, layers of B]`, NaN where not computed.

    Attributes:
        mean: Mean under permutation.
        q95: 95 % quantile (5 % for a distance): what one shuffle in twenty reaches.
        calibrated: `(value - q95) / (value on identical input - q95)`.
        p_value: `(1 + permutations at least as similar) / (1 + permutations)`, per cell.
        p_adjusted: The same, counting permutations whose *best* cell is at least as similar.
        permutations: How many.
        quantile: "empirical", or "normal" where there are too few for a quantile of their own.
    """

    mean: np.ndarray
    q95: np.ndarray
    calibrated: np.ndarray
    p_value: np.ndarray
    p_adjusted: np.ndarray
    permutations: int
    quantile: str


def draw_permutations(n: int, count: int, seed: int) -> np.ndarray:
    """`count` permutations of `n` rows, `[count, n]` int64.

    Example:
        >>> draw_permutations(4, 2, seed=0).shape
        (2, 4)
    """
    generator = np.random.default_rng([seed, n])
    return np.stack([generator.permutation(n) for _ in range(count)]) if count else np.empty((0, n))


def permutation_null(
    measure: Measure,
    xs: Sequence[Features],
    ys: Sequence[Features],
    values: np.ndarray,
    permutations: np.ndarray,
    mask: np.ndarray | None = None,
) -> Null:
    """Shuffle the rows of all layers of B together and summarise what the measure then says.

    Args:
        measure: The measure.
        xs: Features of the layers of A.
        ys: Features of the layers of B, same rows.
        values: `[len(xs), len(ys)]`, the measure on matched rows.
        permutations: `[count, n]`, from `draw_permutations`.
        mask: Cells to compute; None for all.

    Raises:
        UsageError: No permutations.

    Example:
        >>> from repsim.measures import as_features, get_measure
        >>> rng = np.random.default_rng(0)
        >>> x, y = as_features(rng.normal(size=(60, 4))), as_features(rng.normal(size=(60, 4)))
        >>> cka = get_measure("cka")
        >>> orders = draw_permutations(60, 99, seed=0)
        >>> null = permutation_null(cka, [x], [x], np.ones((1, 1)), orders)
        >>> round(float(null.p_value[0, 0]), 2), abs(float(null.mean[0, 0])) < 0.02
        (0.01, True)
    """
    return summarise(measure, values, null_values(measure, xs, ys, permutations, mask))


def null_values(
    measure: Measure,
    xs: Sequence[Features],
    ys: Sequence[Features],
    permutations: np.ndarray,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """The measure under each permutation, `[count, len(xs), len(ys)]`.

    Measures that are an inner product of one matrix per layer over pairs of sentences (CKA, RSA)
    are computed as such: the matrix of one side is re-indexed and multiplied, nothing is
    factorised. Unit-wise correlation sums one product of rows per sentence, and every shuffle picks
    its products out of the same n x n. The others are evaluated on `Features.permuted`, whose
    factorisations are re-indexed as well.
    """
    if len(permutations) == 0:
        raise UsageError("a null needs at least one permutation", hint="permutations=100")
    matrix_of = pair_matrix(measure)
    if matrix_of is not None:
        products = shuffled_products(matrix_of, xs, ys, permutations)
        return products if mask is None else np.where(mask, products, np.nan)
    if ALIASES.get(measure.name, (measure.name, {}))[0] == "unit_correlation":
        return shuffled_unit_correlations(xs, ys, permutations, mask)
    rounds = [
        evaluate(measure, xs, [y.permuted(order) for y in ys], mask) for order in permutations
    ]
    return np.stack(rounds)


def summarise(measure: Measure, values: np.ndarray, null: np.ndarray) -> Null:
    """Summary of null values `[count, La, Lb]` for the observed `[La, Lb]`; see `Null`.

    Example:
        >>> from repsim.measures import get_measure
        >>> shuffled = np.linspace(0, 0.1, 99).reshape(99, 1, 1)
        >>> null = summarise(get_measure("cka"), np.array([[0.5]]), shuffled)
        >>> round(float(null.q95[0, 0]), 3), round(float(null.calibrated[0, 0]), 3)
        (0.095, 0.448)
    """
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
