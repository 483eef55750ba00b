"""A merge that might be made, what a predictor is asked about it, and what it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from repsim.core.forecast import Interval, KnownMerge

#: Ways to bring models into one system of coordinates before merging.
ALIGNMENTS = ("none", "permutation", "orthogonal")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One merge that might be made.

    Attributes:
        parents: Names of the parents, in the order of merging.
        method: Merge method.
        alignment: none, permutation or orthogonal.
        base: Base of methods on differences; empty for none.
        features: Language -> feature -> value; what concerns all languages stands in each. NaN
            where it is not defined or not known.
        tiers: Tiers that were measured.
    """

    parents: tuple[str, ...]
    method: str
    alignment: str
    base: str
    features: Mapping[str, Mapping[str, float]]
    tiers: tuple[str, ...]

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages that are asked about."""
        return tuple(self.features)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A predictor's answer.

    Attributes:
        refusal: Why it cannot say, in words; empty if it can.
        retention: Language -> retention with its interval; empty if refused.
        worst: Least retention over languages.
        p_collapse: Probability that this is below a half; None if refused.
        p_useful: Probability that the merge beats each parent alone; None if not known.
        effects: Feature -> by how much it moves the retention of the worst language away from the
            mean of known merges.
        values: Feature -> its value, for features that the predictor made of those measured.
        nearest: Nearest known merges, the nearest first.
    """

    refusal: str = ""
    retention: dict[str, Interval] = dataclasses.field(default_factory=dict)
    worst: Interval | None = None
    p_collapse: float | None = None
    p_useful: float | None = None
    effects: dict[str, float] = dataclasses.field(default_factory=dict)
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    nearest: tuple[KnownMerge, ...] = ()

    @property
    def worst_language(self) -> str | None:
        """Language of the least point forecast; None if refused."""
        if not self.retention:
            return None
        return min(self.retention, key=lambda language: self.retention[language].value)


@dataclasses.dataclass(frozen=True)
class Beside:
    """Where a value of a feature lies among known merges.

    Attributes:
        below: Share of known merges with a lower value, 0 to 1.
        typical: Median retention of the known merges with the most similar values.
        count: How many those are.
    """

    below: float
    typical: float
    count: int


class MergePredictor(Protocol):
    """What the forecast needs of a predictor."""

    @property
    def identity(self) -> str:
        """Name and hash."""
        ...

    def combinations(self) -> Sequence[tuple[str, str]]:
        """Pairs of method and alignment among known merges."""
        ...

    def known_range(self, feature: str) -> tuple[float, float] | None:
        """Least and largest value among known merges; None if there is none."""
        ...

    def foretell(self, candidate: Candidate) -> Prediction:
        """Answer, or refuse."""
        ...

    def beside(self, feature: str, value: float, candidate: Candidate) -> Beside | None:
        """Where a value lies among known merges of that method and alignment; None: not known."""
        ...
