"""Pairs of models: what the models of a pair explain by themselves, and what is left of a relation.

Every pair shares its members with others, so that rows are not independent: intervals draw models
(`repsim.stats.bootstrap`), and permutations relabel models, not pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from repsim.stats.bootstrap import interval_of, members_of, model_weights
from repsim.stats.weighted import weighted_correlation

DRAWS = 1000
SEED = 20260525

Pair = tuple[str, str]


class Relation(NamedTuple):
    """A correlation over pairs: value, 95 % interval over models, and p of relabelling models."""

    value: float
    low: float
    high: float
    p: float
    pairs: int
    models: int


def member_effects(y: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Least squares fit of `y[ij] = m + e[i] + e[j]`, `[pairs]`; `members` is `[pairs, models]`."""
    design = members.astype(np.float64)  # two models to a pair: the intercept lies in their span
    return np.asarray(design @ np.linalg.lstsq(design, y, rcond=None)[0])


def explained_by_members(y: np.ndarray, members: np.ndarray) -> tuple[float, float]:
    """R2 of the additive effects of models, and R2 adjusted for their number; NaN if undefined."""
    rest = y - member_effects(y, members)
    total = float(((y - y.mean()) ** 2).sum())
    rank = int(np.linalg.matrix_rank(members.astype(np.float64)))
    if total == 0 or len(y) <= rank:
        return math.nan, math.nan
    share = float((rest**2).sum()) / total
    return 1 - share, 1 - share * (len(y) - 1) / (len(y) - rank)


def relation(
    x: np.ndarray, y: np.ndarray, pairs: Sequence[Pair], *, partial: bool = False,
    draws: int = DRAWS, seed: int = SEED,
) -> Relation:  # fmt: skip
    """Correlation of two relations of pairs; p as Mantel 1967, `partial` as Dekker et al. 2007."""
    members = members_of(pairs)
    value = float(_values(x, y, members, np.ones((1, len(y))), partial)[0])
    weights = model_weights(members, draws=draws, seed=seed)
    low, high = interval_of(_values(x, y, members, weights, partial))
    p = _mantel(x, y, members, partial, value, draws, seed)
    return Relation(value, low, high, p, len(y), members.shape[1])


def _values(
    x: np.ndarray, y: np.ndarray, members: np.ndarray, weights: np.ndarray, partial: bool
) -> np.ndarray:
    """The correlation under each row of weights `[draws, pairs]`."""
    if not partial:
        return weighted_correlation(x, y, weights, ranked=True)
    rest_x, rest_y = (_rest(values[None], members, weights) for values in (x, y))
    return weighted_correlation(rest_x, rest_y, weights)


def _rest(values: np.ndarray, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What additive effects of models leave `[draws, pairs]`; zero where that is rounding."""
    design = members.astype(np.float64)
    gram = np.einsum("dp,pi,pj->dij", weights, design, design)
    effects = np.linalg.pinv(gram, hermitian=True) @ ((weights * values) @ design)[:, :, None]
    rest = values - effects[:, :, 0] @ design.T
    scale = np.abs(values).max(axis=1, keepdims=True)
    left = np.abs(np.where(weights > 0, rest, 0)).max(axis=1, keepdims=True)
    return np.where(left > 1e-9 * scale, rest, 0.0)


def _mantel(
    x: np.ndarray, y: np.ndarray, members: np.ndarray, partial: bool, value: float, draws: int,
    seed: int,
) -> float:  # fmt: skip
    """Share of relabellings of models that go with y as well, or better, either way."""
    count = members.shape[1]
    places = np.array([np.flatnonzero(row) for row in members])
    if len(y) != count * (count - 1) // 2 or math.isnan(value):
        return math.nan
    number = np.zeros((count, count), dtype=np.int64)
    number[places[:, 0], places[:, 1]] = number[places[:, 1], places[:, 0]] = np.arange(len(y))
    rng = np.random.default_rng(seed)
    orders = np.array([rng.permutation(count) for _ in range(draws)])
    others = x[number[orders[:, places[:, 0]], orders[:, places[:, 1]]]]
    if partial:
        once = np.ones((1, len(y)))
        rest = others - others @ np.linalg.pinv(members.astype(float)).T @ members.T
        found = weighted_correlation(rest, _rest(y[None], members, once)[0], np.ones(others.shape))
    else:
        ranked = rankdata(others, axis=1)
        found = weighted_correlation(ranked, rankdata(y), np.ones(others.shape))
    return float((1 + (np.abs(found) >= abs(value) - 1e-12).sum()) / (1 + draws))
