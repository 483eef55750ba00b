"""What a measure says when the sentences of one side are shuffled: the permutation null.

One permutation is applied to all layers of the pair, so that the largest value over all layer pairs
has a null too (Westfall and Young 1993). Where rows come from documents, whole documents change
places with others of like length, and stay where there are none: valid, and a null that is too high
rather than too low. Where a measure is a sum over documents (`by_document`), their signs are drawn
instead; where the moments over all shuffles have a closed form (`moments`), nothing is.

Reference: Gröger, Wen, Brbić 2026 (arXiv 2602.14486) for calibration against a permutation null.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from scipy import stats

from repsim.core import Measure, UsageError
from repsim.measures.base import compute_grid
from repsim.measures.documents import shifted, shuffled_documents
from repsim.measures.features import Mask, Side
from repsim.measures.layer_blocks import in_blocks
from repsim.measures.pair_matrices import shuffled_products

#: Fewer draws than this, and the 95 % quantile is that of a normal distribution with their mean and
#: standard deviation: the second largest of 20 values is no estimate of a quantile.
LEAST_FOR_QUANTILE = 40
NORMAL_Q95 = 1.6448536269514722
#: Fewer draws than this, and no count of them reaches 5 %: p is then Student's prediction of a
#: further draw from their mean and standard deviation.
LEAST_FOR_COUNT = 19
#: Over so many rows, what pairs of documents contribute is summed over random documents with so
#: many rows, and the spread of the null taken to the size of the whole.
MOST_PAIRED = 10_000
#: A tail that was fitted to a few draws is not believed under this.
LEAST_FITTED = 0.001
#: Nor that of a distribution with the null's own moments under this.
LEAST_EXACT = 1e-6
#: Skewness beyond which no gamma distribution fits a null (a few rows decide it): the bound that
#: holds for every distribution of that mean and variance is taken (Cantelli 1928).
MOST_SKEWED = 4.0


@dataclasses.dataclass(frozen=True)
class Null:
    """The null of a grid; arrays are `[layers of A, layers of B]`, NaN where not computed."""

    mean: np.ndarray
    q95: np.ndarray
    calibrated: np.ndarray
    p_value: np.ndarray
    p_adjusted: np.ndarray
    method: str


def draw_permutations(
    n: int, count: int, seed: int, labels: np.ndarray | None = None, *, run_on: bool = False
) -> np.ndarray:
    """`count` permutations, `[count, n]`: of rows, or of whole documents by their `labels`."""
    known = None if labels is None else np.asarray(labels, dtype=np.int64).tobytes()
    return _drawn(n, count, seed, known, run_on)


@functools.lru_cache(maxsize=4)
def _drawn(n: int, count: int, seed: int, documents: bytes | None, run_on: bool) -> np.ndarray:
    """All units of a sweep shuffle alike: drawn once."""
    generator = np.random.default_rng([seed, n])
    if documents is None:
        drawn = [generator.permutation(n) for _ in range(count)]
    else:
        labels = np.frombuffer(documents, dtype=np.int64)
        apart = int(np.bincount(labels).max())
        drawn = [
            shifted(n, apart, generator) if run_on else shuffled_documents(labels, generator)
            for _ in range(count)
        ]
    return np.stack(drawn) if count else np.empty((0, n), dtype=np.int64)


def draw_signs(units: int, count: int, seed: int) -> np.ndarray:
    """Random signs of the units, `[count, units]`."""
    return np.random.default_rng([seed, units]).choice([-1.0, 1.0], size=(count, units))


def permutation_null(
    measure: Measure,
    xs: Side,
    ys: Side,
    values: np.ndarray,
    permutations: np.ndarray,
    mask: Mask = None,
) -> Null:
    """Shuffle the rows of all layers of B together and summarise what the measure then says."""
    return summarise(measure, values, null_values(measure, xs, ys, permutations, mask))


def null_values(
    measure: Measure, xs: Side, ys: Side, permutations: np.ndarray, mask: Mask = None
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

    def rounds(a: Side, b: Side, m: Mask) -> np.ndarray:
        orders = ([y.permuted(order) for y in b] for order in permutations)
        return np.stack([compute_grid(measure, a, shuffled, m) for shuffled in orders])

    return in_blocks(measure, rounds, xs, ys, mask)


def summarise(
    measure: Measure, values: np.ndarray, null: np.ndarray, drawn: str = "shuffles"
) -> Null:
    """Summary of null values `[count, La, Lb]` for the observed `[La, Lb]`; see `Null`."""
    count = len(null)
    sign = 1.0 if measure.direction == "similarity" else -1.0
    computed = np.isfinite(values) & np.isfinite(null).all(axis=0)
    oriented = sign * np.where(computed, null, np.nan)
    # A rounding error must not turn "equal" into "less similar": identical values count.
    observed = sign * values - 1e-12 * np.abs(values)
    best = np.where(computed, oriented, -np.inf).max(axis=(1, 2))
    best = np.where(np.isfinite(best), best, np.nan)[:, None, None]
    tail = _fitted_tail if count < LEAST_FOR_COUNT else _counted_tail
    if count >= LEAST_FOR_QUANTILE:
        method, q95 = f"{count} {drawn}", np.quantile(oriented, 0.95, axis=0)
    else:
        method = f"{count} {drawn}, normal tail"
        q95 = oriented.mean(axis=0) + NORMAL_Q95 * _spread(oriented)
    return Null(
        mean=sign * oriented.mean(axis=0),
        q95=sign * q95,
        calibrated=_calibrated(measure, values, sign * q95),
        p_value=np.where(computed, tail(oriented, observed), np.nan),
        p_adjusted=np.where(computed, tail(best, observed), np.nan),
        method=method,
    )


def from_moments(
    measure: Measure, values: np.ndarray, moments: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> Null:
    """Summary of a null of known mean, standard deviation and skewness; `p_adjusted` is Holm's."""
    sign = 1.0 if measure.direction == "similarity" else -1.0
    mean, spread, skew = sign * moments[0], moments[1], sign * moments[2]
    steps, fits = (sign * values - mean) / spread, np.abs(skew) <= MOST_SKEWED
    bound = np.where(steps > 0, 1 / (1 + steps**2), 1.0)
    shape = np.where(fits, skew, 0.0)
    p = np.where(fits, stats.pearson3.sf(steps, shape), bound)
    p = np.where(np.isfinite(values), np.maximum(p, LEAST_EXACT), np.nan)
    reach = np.where(fits, stats.pearson3.ppf(0.95, shape), np.sqrt(19.0))
    q95 = np.where(np.isfinite(values), sign * (mean + spread * reach), np.nan)
    return Null(
        mean=np.where(np.isfinite(values), sign * mean, np.nan),
        q95=q95,
        calibrated=_calibrated(measure, values, q95),
        p_value=p,
        p_adjusted=_holm(p),
        method="moments of all shuffles",
    )


def _holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p of those that are known."""
    found, known = np.full(p.shape, np.nan), np.isfinite(p)
    order = np.argsort(p[known])
    left = np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[known][order] * left), 1.0)
    found[known] = adjusted
    return found


def _counted_tail(null: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Share of draws, the observed value one of them, that reach it."""
    return np.asarray((1 + (null >= observed).sum(axis=0)) / (1 + len(null)))


def _spread(null: np.ndarray) -> np.ndarray:
    """Standard deviation of the draws; NaN of a single one."""
    return np.asarray(null.std(axis=0, ddof=1) if len(null) > 1 else null[0] * np.nan)


def _fitted_tail(null: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Probability that a further draw reaches the observed value, if draws are normal."""
    counted = _counted_tail(null, observed)
    spread = _spread(null) * np.sqrt(1 + 1 / len(null))
    flat = ~(spread > 1e-12 * np.abs(observed))
    steps = (observed - null.mean(axis=0)) / np.where(flat, 1.0, spread)
    fitted = np.maximum(stats.t.sf(steps, max(1, len(null) - 1)), LEAST_FITTED)
    return np.where(flat, counted, fitted)


def _calibrated(measure: Measure, values: np.ndarray, q95: np.ndarray) -> np.ndarray:
    """0 at the null's quantile, 1 on identical input; NaN where the null is at the ceiling."""
    span = measure.identity_value - q95
    usable = np.abs(span) > 1e-6 * max(1.0, abs(measure.identity_value))
    return np.divide(values - q95, span, out=np.full_like(values, np.nan), where=usable)
