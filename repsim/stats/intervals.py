"""Intervals of one number: leaving one unit out at a time, and of a share of answers."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy import stats

#: Fewest units that a standard error is taken from.
LEAST_UNITS = 5


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number with its interval; NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


def jackknife(track: np.ndarray, level: float = 0.95) -> Interval:
    """Student interval of `[value, *replicates]` (Efron and Tibshirani 1993, chapter 11)."""
    value, replicates = float(track[0]), track[1:]
    n = len(replicates)
    if n < LEAST_UNITS or not np.isfinite(track).all():
        return Interval(value)
    reach = float(jackknife_error(replicates, level)[1])
    return Interval(value, value - reach, value + reach)


def jackknife_error(replicates: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Standard error of numbers `[...]` from their replicates `[n, ...]`, and times Student's t."""
    n = len(replicates)
    spread = np.square(replicates - replicates.mean(axis=0)).sum(axis=0)
    error = np.sqrt((n - 1) / n * spread)
    return error, stats.t.ppf(0.5 + level / 2, n - 1) * error


def wilson(hits: float, n: int, level: float = 0.95) -> Interval:
    """Share of hits with its interval (Wilson 1927); hits may be parts."""
    if n == 0:
        return Interval(math.nan)
    z = float(stats.norm.ppf(0.5 + level / 2))
    share = hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(share, max(0.0, middle - reach), min(1.0, middle + reach))
