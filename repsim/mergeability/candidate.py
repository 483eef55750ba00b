"""A merge that might be made, what a predictor is asked about it, and what it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from repsim.core.forecast import Interval, KnownMerge

#: Largest probability of collapse at which a merge is said to survive, and the least at which it is
#: said to collapse, where everything was measured.
MOST_RISK, LEAST_RISK = 0.2, 0.5
#: What may be forecast: what is kept over unigrams, and of what parents gained over their base.
RETENTION, GAIN = OUTCOMES = ("retention", "gain_kept")
#: Name of the effect of known merges that are most alike.
NEARBY = "nearby"
#: Ways to bring models into one system of coordinates before merging.
ALIGNMENTS = ("none", "permutation", "orthogonal")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One merge that might be made."""

    parents: tuple[str, ...]
    method: str
    alignment: str
    base: str
    features: Mapping[str, Mapping[str, float]]  # by language; NaN where it is not known
    tiers: tuple[str, ...]
    parameters: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)  # by model

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages that are asked about."""
        return tuple(self.features)


@dataclasses.dataclass(frozen=True)
class Doubt:
    """Between which probabilities of collapse the fate of a merge is open, and what settles it."""

    low: float = MOST_RISK
    high: float = LEAST_RISK
    settled_by: str = ""  # the tier to measure up to; empty if there is none


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A predictor's answer."""

    refusal: str = ""  # why it cannot say; the rest is empty then
    kept: dict[str, Interval] = dataclasses.field(default_factory=dict)  # by language
    worst: Interval | None = None
    p_collapse: float | None = None  # that the least that is kept is below a half
    p_useful: float | None = None  # that the merge beats each parent alone
    #: By how much a feature moves the worst language away from the mean of known merges.
    effects: dict[str, float] = dataclasses.field(default_factory=dict)
    #: Values of features that the predictor made of those measured.
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    nearest: tuple[KnownMerge, ...] = ()
    doubt: Doubt = Doubt()
    stated: tuple[str, ...] = ()  # what the parents state that counts beside what is measured

    @property
    def worst_language(self) -> str | None:
        """Language of the least point forecast; None if refused."""
        return min(self.kept, key=lambda language: self.kept[language].value, default=None)


@dataclasses.dataclass(frozen=True)
class Beside:
    """Where a value of a feature lies among known merges."""

    below: float  # share of known merges with a lower value
    typical: float  # median outcome of the known merges with the most similar values
    usual: float  # the same of all known merges of that method and alignment


class MergePredictor(Protocol):
    """What the forecast needs of a predictor."""

    @property
    def identity(self) -> str:
        """Name and hash."""
        ...

    @property
    def outcome(self) -> str:
        """What it forecasts: retention or gain_kept."""
        ...

    def combinations(self) -> Sequence[tuple[str, str]]:
        """Pairs of method and alignment among known merges."""
        ...

    def known_parameters(self, method: str) -> Mapping[str, Sequence[float]]:
        """Values of parameters that known merges by a method had; empty if not known."""
        ...

    def known_settings(self, method: str, alignment: str) -> Sequence[Mapping[str, float]]:
        """Sets of parameters that known merges by a method had; an empty one for its defaults."""
        ...

    def stated(self, column: str) -> Mapping[str, int]:
        """Family or text -> groups of parents that known merges of it have; empty if not stated."""
        ...

    def known_values(self, feature: str) -> Sequence[float]:
        """Distinct values among known merges, the least first; empty if there are none."""
        ...

    def answer(self, candidate: Candidate) -> Prediction:
        """Answer, or refuse."""
        ...

    def beside(self, feature: str, value: float, candidate: Candidate) -> Beside | None:
        """Where a value lies among known merges of that method and alignment; None: not known."""
        ...
