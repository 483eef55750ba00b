"""Intervals over documents (jackknife) and over yes-or-no answers (Wilson)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from repsim.evaluation.bits_per_byte import BitsPerByte

#: Fewest documents that a standard error is taken from.
LEAST_DOCUMENTS = 5


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its interval; NaN where there is none.

    Attributes:
        value: The number.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float = math.nan
    high: float = math.nan


def leave_one_out(
    score: BitsPerByte, documents: Sequence[str], everyone: Sequence[str]
) -> np.ndarray:
    """Bits per byte of all documents, then without each document in turn."""
    place = {name: i for i, name in enumerate(documents)}
    bits, sizes = float(score.bits.sum()), float(score.sizes.sum())
    known = np.array([place.get(name, -1) for name in everyone], dtype=np.int64)
    gone_bits = np.where(known >= 0, score.bits[known], 0.0)
    gone_sizes = np.where(known >= 0, score.sizes[known], 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (bits - gone_bits) / (sizes - gone_sizes)
    return np.concatenate([[bits / sizes], without])


def jackknife(track: np.ndarray, level: float = 0.95) -> Estimate:
    """Interval from delete-one replicates, symmetric with a Student quantile."""
    from scipy import stats

    value, replicates = float(track[0]), track[1:]
    n = len(replicates)
    if n < LEAST_DOCUMENTS or not np.isfinite(track).all():
        return Estimate(value)
    error = math.sqrt((n - 1) / n * float(np.square(replicates - replicates.mean()).sum()))
    reach = float(stats.t.ppf(0.5 + level / 2, n - 1)) * error
    return Estimate(value, value - reach, value + reach)


def wilson(hits: float, n: int, level: float = 0.95) -> Estimate:
    """Share of hits with its interval."""
    from scipy import stats

    if n == 0:
        return Estimate(math.nan)
    z = float(stats.norm.ppf(0.5 + level / 2))
    share = hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Estimate(share, max(0.0, middle - reach), min(1.0, middle + reach))
