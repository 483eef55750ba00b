"""From which share of training in common on the merges of a recipe survive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.core.formatting import percent
from repsim.stats.bootstrap import Estimate, estimate

#: A crossing is interpolated between two fractions of at most this ratio; over wider gaps a
#: straight line would invent it.
WIDEST = 3.5


class ForkSeries(NamedTuple):
    """Worst retention of a pair, or of a recipe (median, least, most over pairs), by fraction."""

    label: str
    fractions: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Crossing(NamedTuple):
    """Fraction at which the worst language keeps half: median and range over pairs."""

    recipe: str
    at: Estimate
    least: float
    most: float
    pairs: int
    bracket: tuple[float, float]
    coarse: int

    def words(self) -> str:
        """In words."""
        words = []
        if self.pairs:
            interval = ""
            if not math.isnan(self.at.low):
                ends = f"{_share(self.at.low)} to {_share(self.at.high)}"
                interval = f", 95 % interval over languages {ends}"
            spread = f"{_share(self.least)} to {_share(self.most)}"
            words.append(f"{self.pairs} pairs, {spread}{interval}")
        if self.coarse:
            ends = f"{_share(self.bracket[0])} and {_share(self.bracket[1])}"
            words.append(f"{self.coarse} {'others' if self.pairs else 'pairs'} between {ends}")
        start = _share(self.at.value) if self.pairs else "unknown"
        return f"{start} ({'; '.join(words)})"


def _share(fraction: float) -> str:
    return "never" if math.isinf(fraction) else percent(fraction)


def crossing(label: str, series: Sequence[ForkSeries]) -> Crossing:
    """Crossings of all pairs; languages are drawn, since a language's forks belong together."""
    fine, languages, coarse = [], [], []
    for one in series:
        if len(one.fractions) < 2:
            continue
        low, high = bracket_of(one.fractions, one.values)
        if low > 0 and not math.isinf(high) and high / low > WIDEST:
            coarse.append((low, high))
        else:
            fine.append(crossing_of(one.fractions, one.values))
            languages.append(tuple(one.label.split("–")))
    none = Estimate(math.nan, math.nan, math.nan, 0, 0)
    return Crossing(
        recipe=label,
        at=estimate(fine, languages) if fine else none,
        least=min(fine, default=math.nan),
        most=max(fine, default=math.nan),
        pairs=len(fine),
        bracket=(min((low for low, _ in coarse), default=math.nan),
                 max((high for _, high in coarse), default=math.nan)),
        coarse=len(coarse),
    )  # fmt: skip


def bracket_of(
    fractions: np.ndarray, values: np.ndarray, at: float = COLLAPSE
) -> tuple[float, float]:
    """Neighbouring fractions between which a series rises above a value, to stay there."""
    below = np.flatnonzero(values < at)
    if len(below) == 0:
        return float(fractions[0]), float(fractions[0])
    last = int(below[-1])
    upper = math.inf if last == len(values) - 1 else float(fractions[last + 1])
    return float(fractions[last]), upper


def crossing_of(fractions: np.ndarray, values: np.ndarray, at: float = COLLAPSE) -> float:
    """The fraction from which on a series stays above a value, straight in its logarithm."""
    low, high = bracket_of(fractions, values, at)
    if low == high or math.isinf(high):
        return high
    start, end = values[fractions == low][0], values[fractions == high][0]
    share = float((at - start) / (end - start))
    if low <= 0:
        return low + share * (high - low)
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
