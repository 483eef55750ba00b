"""Intervals over models: merges that share a parent are not independent, so models are drawn.

A bootstrap of a dyadic table (Snijders and Borgatti 1999, "Non-parametric standard errors and tests
for network statistics"): models are drawn with replacement, and a merge counts as often as the
product of how often each of its parents was drawn.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import rankdata

DRAWS = 1000
SEED = 20260525
#: With fewer models than this an interval over models says nothing.
LEAST_MODELS = 4


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval over models; NaN where there are too few of them."""

    value: float
    low: float
    high: float
    models: int
    merges: int


def model_weights(
    parents: Sequence[tuple[str, ...]], *, draws: int = DRAWS, seed: int = SEED
) -> np.ndarray:
    """How often each merge counts in each draw of models.

    Args:
        parents: Parents of each merge; one that occurs twice in a merge counts once.
        draws: Number of draws; those in which no merge is left are not among what is returned.
        seed: Seed.

    Returns:
        `[at most draws, merges]`, whole numbers.

    Example:
        >>> model_weights([("a", "b"), ("b", "c")], draws=3, seed=0).tolist()
        [[1.0, 1.0], [2.0, 0.0]]
    """
    names = sorted({name for group in parents for name in group})
    place = {name: i for i, name in enumerate(names)}
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(names), [1 / len(names)] * len(names), size=draws)
    weights = np.ones((draws, len(parents)))
    for column, group in enumerate(parents):
        for name in dict.fromkeys(group):
            weights[:, column] *= drawn[:, place[name]]
    return weights[weights.sum(axis=1) > 0]


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Median of the values under each row of weights, the mean of the middle two where it is even.

    Args:
        values: `[n]`, may hold infinities.
        weights: `[draws, n]`, none of whose rows is all zero.

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


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of the values under each row of weights."""
    return np.asarray(weights @ values / weights.sum(axis=1))


def estimate(
    values: Sequence[float],
    parents: Sequence[tuple[str, ...]],
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray] = weighted_median,
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
    drawn = statistic(array, _weights(tuple(parents)))
    low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
    return Estimate(value, float(low), float(high), models, len(array))


@functools.lru_cache(maxsize=64)
def _weights(parents: tuple[tuple[str, ...], ...]) -> np.ndarray:
    """Weights of one set of merges, which many statistics share."""
    return model_weights(parents)


def share(hits: Sequence[bool], parents: Sequence[tuple[str, ...]]) -> Estimate:
    """Share of merges of which something is true, with its interval over models.

    Args:
        hits: One per merge.
        parents: Parents of each merge.
    """
    return estimate([float(hit) for hit in hits], parents, weighted_mean)


def spearman(x: np.ndarray, y: np.ndarray, parents: Sequence[tuple[str, ...]]) -> Estimate:
    """Rank correlation, with its interval over models.

    Args:
        x: One value per merge.
        y: The other.
        parents: Parents of each merge.

    Example:
        >>> spearman(np.arange(3.0), np.arange(3.0), [("a", "b"), ("b", "c"), ("a", "c")]).value
        1.0
    """

    def correlation(_: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.array([_weighted_spearman(x, y, row) for row in weights])

    return estimate(x.tolist(), parents, correlation)


def _weighted_spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """Rank correlation of the rows drawn; 0 in a draw in which one side does not vary."""
    kept = np.repeat(np.arange(len(x)), weights.astype(int))
    a, b = rankdata(x[kept]), rankdata(y[kept])
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
