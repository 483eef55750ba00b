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
    """Bits per byte of all documents, then without each document in turn.

    Bytes vary, so this is a ratio: bits and bytes of a document leave together. What is computed
    from several such arrays, element by element, is paired over documents.

    Args:
        score: Bits and bytes per document.
        documents: Id of each.
        everyone: Ids to leave out in turn; one that is not among `documents` changes nothing.

    Returns:
        `[1 + len(everyone)]`.

    Example:
        >>> score = BitsPerByte(np.array([8.0, 4.0]), np.array([4, 4]))
        >>> leave_one_out(score, ["a", "b"], ["b", "c"]).tolist()
        [1.5, 2.0, 1.5]
    """
    place = {name: i for i, name in enumerate(documents)}
    bits, sizes = float(score.bits.sum()), float(score.sizes.sum())
    known = np.array([place.get(name, -1) for name in everyone], dtype=np.int64)
    gone_bits = np.where(known >= 0, score.bits[known], 0.0)
    gone_sizes = np.where(known >= 0, score.sizes[known], 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (bits - gone_bits) / (sizes - gone_sizes)
    return np.concatenate([[bits / sizes], without])


def jackknife(track: np.ndarray, level: float = 0.95) -> Estimate:
    """Interval from delete-one replicates, symmetric with a Student quantile.

    Args:
        track: `[1 + n]`: the value, then the value without each document.
        level: Nominal coverage.

    Returns:
        Without an interval if there are fewer than `LEAST_DOCUMENTS` documents.

    Source: Efron and Tibshirani (1993), "An Introduction to the Bootstrap", chapter 11.

    Example:
        >>> x = np.arange(10.0)
        >>> means = np.array([x.mean(), *(np.delete(x, i).mean() for i in range(10))])
        >>> found = jackknife(means)  # of a mean it is the usual t interval
        >>> round(found.low, 3), round(found.high, 3)
        (2.334, 6.666)
    """
    from scipy import stats

    value, replicates = float(track[0]), track[1:]
    n = len(replicates)
    if n < LEAST_DOCUMENTS or not np.isfinite(track).all():
        return Estimate(value)
    error = math.sqrt((n - 1) / n * float(np.square(replicates - replicates.mean()).sum()))
    reach = float(stats.t.ppf(0.5 + level / 2, n - 1)) * error
    return Estimate(value, value - reach, value + reach)


def wilson(hits: float, n: int, level: float = 0.95) -> Estimate:
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
    from scipy import stats

    if n == 0:
        return Estimate(math.nan)
    z = float(stats.norm.ppf(0.5 + level / 2))
    share = hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Estimate(share, max(0.0, middle - reach), min(1.0, middle + reach))
