"""Correlations under many rows of weights at once, as draws of models make them."""

from __future__ import annotations

import numpy as np

from repsim.stats.bootstrap import weighted_ranks

#: Fewest cases with a weight that a correlation is told of.
LEAST = 4


def weighted_correlation(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, *, ranked: bool = False
) -> np.ndarray:
    """Correlation under each row of weights `[draws, n]`; NaN of too few or of none that vary."""
    if ranked:
        x, y = weighted_ranks(x, weights), weighted_ranks(y, weights)
    x, y = np.broadcast_to(x, weights.shape), np.broadcast_to(y, weights.shape)
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = [np.abs(v).max(axis=1) for v in (x, y)]
        x = x - (weights * x).sum(axis=1, keepdims=True) / total
        y = y - (weights * y).sum(axis=1, keepdims=True) / total
        covariance = (weights * x * y).sum(axis=1)
        sizes = [(weights * v * v).sum(axis=1) for v in (x, y)]
        # What rounding leaves of values that do not vary is no variation.
        varies = np.all([s > 1e-20 * total[:, 0] * np.maximum(m, 1e-150) ** 2
                         for s, m in zip(sizes, spread, strict=True)], axis=0)  # fmt: skip
        several = (weights > 0).sum(axis=1) >= min(LEAST, weights.shape[1])
        return np.where(several & varies, covariance / np.sqrt(sizes[0] * sizes[1]), np.nan)
