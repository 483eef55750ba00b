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
    """A number with its interval; NaN where there is none.

    Attributes:
        value: The number.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float = math.nan
    high: float = math.nan


def jackknife(track: np.ndarray, level: float = 0.95) -> Interval:
    """Interval from delete-one replicates, symmetric with a Student quantile.

    Args:
        track: `[1 + n]`: the value, then the value without each unit.
        level: Nominal coverage.

    Returns:
        Without an interval if there are fewer than `LEAST_UNITS` units.

    Source: Efron and Tibshirani (1993), "An Introduction to the Bootstrap", chapter 11.

    Example:
        >>> x = np.arange(10.0)
        >>> means = np.array([x.mean(), *(np.delete(x, i).mean() for i in range(10))])
        >>> found = jackknife(means)  # of a mean it is the usual t interval
        >>> round(found.low, 3), round(found.high, 3)
        (2.334, 6.666)
    """
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
    """Share of hits with its interval.

    Args:
        hits: Number of hits; ties may count as parts.
        n: Number of trials.
        level: Nominal coverage.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".

    Example:
        >>> found = wilson(8, 10)
        >>> found.value, round(found.low, 3), round(found.high, 3)
        (0.8, 0.49, 0.943)
    """
    if n == 0:
        return Interval(math.nan)
    z = float(stats.norm.ppf(0.5 + level / 2))
    share = hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(share, max(0.0, middle - reach), min(1.0, middle + reach))
