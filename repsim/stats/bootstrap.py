"""Bootstrap over models: merges that share a parent are not independent, so models are drawn.

A merge counts as often as the product of how often its parents were drawn: the bootstrap of a
dyadic table, Snijders and Borgatti 1999, "Non-parametric standard errors and tests for network
statistics".
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

DRAWS = 1000
SEED = 20260525
#: With fewer models than this an interval over models says nothing.
LEAST_MODELS = 4

#: Values and `[draws, merges]` weights in, `[draws]` out.
WeightedStatistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval over models; NaN where there are too few of them."""

    value: float
    low: float
    high: float
    models: int
    merges: int


def members_of(parents: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Which model is a parent of which merge: `[merges, models]`, models by name.

    Example:
        >>> members_of([("b", "a"), ("b", "c")]).astype(int).tolist()
        [[1, 1, 0], [0, 1, 1]]
    """
    names = sorted({name for group in parents for name in group})
    place = {name: i for i, name in enumerate(names)}
    members = np.zeros((len(parents), len(names)), dtype=bool)
    for row, group in enumerate(parents):
        members[row, [place[name] for name in group]] = True
    return members


def model_weights(members: np.ndarray, *, draws: int = DRAWS, seed: int = SEED) -> np.ndarray:
    """How often each merge, `[merges, models]`, counts in each draw of models, `[draws, merges]`.

    Whole numbers; in a draw without a whole group of parents all are 0.

    Example:
        >>> members = members_of([("a", "b"), ("b", "c")])
        >>> model_weights(members, draws=3, seed=0).tolist()
        [[1.0, 1.0], [0.0, 0.0], [2.0, 0.0]]
    """
    count = members.shape[1]
    drawn = np.random.default_rng(seed).multinomial(count, [1 / count] * count, size=draws)
    weights = np.ones((draws, len(members)))
    for model in range(count):
        weights[:, members[:, model]] *= drawn[:, model, None]
    return weights


def interval_of(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of a statistic over draws, which may hold infinities.

    NaN where a draw does not define it; both ends are if fewer than half of the draws do.

    Example:
        >>> interval_of(np.arange(1001.0))
        (25.0, 975.0)
    """
    known = values[~np.isnan(values)]
    if len(known) < len(values) / 2 or not len(known):
        return math.nan, math.nan
    # "nearest" interpolates not, and so takes infinities.
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return float(low), float(high)


def bootstrap(
    statistic: Callable[[np.ndarray], Mapping[str, float]],
    members: np.ndarray,
    *,
    draws: int = DRAWS,
    seed: int = SEED,
    least: int = 1,
) -> dict[str, np.ndarray]:
    """Statistics of the merges of each draw of models; name -> `[draws that are used]`.

    Args:
        statistic: From numbers of merges, some of them repeated, to values by name.
        members: `[merges, models]`: which model is a parent of which merge.
        draws: Number of draws.
        seed: Seed; statistics of the same merges under the same seed are paired, draw by draw.
        least: Fewest merges that a draw is used with.

    Example:
        >>> x = np.array([1.0, 2.0, 6.0])
        >>> members = members_of([("a", "b"), ("b", "c"), ("a", "c")])
        >>> drawn = bootstrap(lambda rows: {"mean": x[rows].mean()}, members, draws=20)
        >>> bool(1 <= drawn["mean"].min() <= drawn["mean"].max() <= 6)
        True
    """
    found: dict[str, list[float]] = {}
    for weights in model_weights(members, draws=draws, seed=seed).astype(int):
        if weights.sum() < least:
            continue
        for name, value in statistic(np.repeat(np.arange(len(weights)), weights)).items():
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Median of values `[n]`, also infinite ones, under weights `[draws, n]`, none all zero.

    The mean of the middle two where the sum of the weights is even.

    Example:
        >>> weighted_median(np.array([3.0, 1.0, 2.0]), np.ones((1, 3))).tolist()
        [2.0]
    """
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    heap = np.cumsum(weights[:, order], axis=1)
    half = heap[:, -1:] / 2
    lower = ranked[np.argmax(heap >= half, axis=1)]
    upper = ranked[np.argmax(heap > half, axis=1)]
    return np.where(lower == upper, lower, (lower + upper) / 2)


def weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean ranks of the values repeated by each row of whole weights, `[draws, n]`."""
    distinct, place = np.unique(values, return_inverse=True)
    counts = np.zeros((len(weights), len(distinct)))
    np.add.at(counts.T, place, weights.T)
    return np.asarray((np.cumsum(counts, axis=1) - (counts - 1) / 2)[:, place])


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of values `[n]` under weights `[draws, n]`, of which no row is all zero."""
    return np.asarray(weights @ values / weights.sum(axis=1))


def estimate(
    values: Sequence[float] | np.ndarray,
    parents: Sequence[tuple[str, ...]],
    statistic: WeightedStatistic = weighted_median,
) -> Estimate:
    """A statistic of merges, with its percentile interval under draws of models.

    Args:
        values: One per merge.
        parents: Parents of each merge, or whatever else its value depends on.
        statistic: Takes values and `[draws, merges]` weights.

    Example:
        >>> estimate([1.0, 2.0, 6.0], [("a", "b"), ("b", "c"), ("a", "c")]).value
        2.0
    """
    array = np.asarray(values, dtype=np.float64)
    models = len({name for group in parents for name in group})
    value = float(statistic(array, np.ones((1, len(array))))[0])
    if models < LEAST_MODELS:
        return Estimate(value, math.nan, math.nan, models, len(array))
    low, high = interval_of(statistic(array, _weights(tuple(parents))))
    return Estimate(value, low, high, models, len(array))


@functools.lru_cache(maxsize=64)
def _weights(parents: tuple[tuple[str, ...], ...]) -> np.ndarray:
    """Weights of one set of merges, which many statistics share; draws without a merge are left."""
    weights = model_weights(members_of(parents))
    return weights[weights.sum(axis=1) > 0]


def share(hits: Sequence[bool], parents: Sequence[tuple[str, ...]]) -> Estimate:
    """Share of merges of which something is true, with its interval over models.

    Example:
        >>> share([True, False], [("a", "b"), ("b", "c")]).value
        0.5
    """
    return estimate([float(hit) for hit in hits], parents, weighted_mean)


def spearman_estimate(x: np.ndarray, y: np.ndarray, parents: Sequence[tuple[str, ...]]) -> Estimate:
    """Rank correlation of two values per merge, with its interval over models.

    Example:
        >>> x = np.arange(3.0)
        >>> spearman_estimate(x, x, [("a", "b"), ("b", "c"), ("a", "c")]).value
        1.0
    """

    def statistic(places: np.ndarray, weights: np.ndarray) -> np.ndarray:
        ranks = [
            weighted_ranks(np.asarray(values)[places.astype(int)], weights) for values in (x, y)
        ]
        total = weights.sum(axis=1)
        middle = (total[:, None] + 1) / 2
        a, b = (each - middle for each in ranks)
        squares = ((weights * a * a).sum(axis=1), (weights * b * b).sum(axis=1))
        with np.errstate(invalid="ignore"):
            found = (weights * a * b).sum(axis=1) / np.sqrt(squares[0] * squares[1])
        return np.where((total < 3) | (squares[0] * squares[1] == 0), np.nan, found)

    return estimate(np.arange(len(x)), parents, statistic)


def auroc_estimate(
    score: np.ndarray, label: np.ndarray, parents: Sequence[tuple[str, ...]]
) -> Estimate:
    """Area under the ROC curve of a score and a label per merge, with its interval over models.

    Example:
        >>> parents = [("a", "b"), ("b", "c"), ("a", "c")]
        >>> auroc_estimate(np.arange(3.0), np.array([0, 0, 1]), parents).value
        1.0
    """
    positive = np.asarray(label, dtype=float) > 0.5

    def statistic(places: np.ndarray, weights: np.ndarray) -> np.ndarray:
        ranks = weighted_ranks(np.asarray(score)[places.astype(int)], weights)
        hits = weights * positive
        n = hits.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = ((hits * ranks).sum(axis=1) - n * (n + 1) / 2) / (n * (weights.sum(axis=1) - n))
        return np.where(np.isfinite(found), found, np.nan)

    return estimate(np.arange(len(score)), parents, statistic)
