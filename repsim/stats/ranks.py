"""Ranks and scores: correlation of ranks, area under the ROC curve, calibration error."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import rankdata

#: Bins of probability of the expected calibration error.
BINS = 10


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of `[n]` and `[n]`; NaN for n < 3, or where one of the two does not vary."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation of `[n]` and `[n]`; NaN for n < 3, or where one of the two does not vary.

    Example:
        >>> round(spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0])), 3)
        0.5
    """
    return pearson(rankdata(a), rankdata(b))


def partial_spearman(a: np.ndarray, b: np.ndarray, given: np.ndarray) -> float:
    """Rank correlation of `[n]` and `[n]`, a third `[n]` held fixed; NaN if nothing is left of one.

    Example:
        >>> x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> round(partial_spearman(x, x[::-1], np.array([2.0, 1.0, 2.0, 1.0, 2.0])), 3)
        -1.0
    """
    if np.ptp(given) == 0:
        return spearman(a, b)
    base = np.stack([np.ones(len(given)), rankdata(given)], axis=1)
    both = (rankdata(a), rankdata(b))
    rest = [r - base @ np.linalg.lstsq(base, r, rcond=None)[0] for r in both]
    if min(np.ptp(part) for part in rest) < 1e-9:
        return math.nan
    return float(np.corrcoef(*rest)[0, 1])


def auroc(score: np.ndarray, label: np.ndarray) -> float:
    """Probability that a positive case (label > 0.5) scores above a negative one; NaN without both.

    Example:
        >>> auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        0.75
    """
    positive = np.asarray(label, dtype=float) > 0.5
    n, m = int(positive.sum()), int((~positive).sum())
    if n == 0 or m == 0:
        return math.nan
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * m))


def calibration_error(p: np.ndarray, label: np.ndarray) -> float:
    """Expected calibration error over ten bins of width 0.1 (Naeini et al. 2015).

    Example:
        >>> round(calibration_error(np.full(10, 0.3), np.repeat([1.0, 0.0], [4, 6])), 3)
        0.1
    """
    which = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = [
        (which == number).sum() * abs((p - label)[which == number].mean())
        for number in np.unique(which)
    ]
    return float(sum(gaps) / len(p))
