"""The forecast of one merge before it is made."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Verdict = Literal["merge", "align first", "do not merge", "cannot say"]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A predicted number with its 90 % interval.

    Attributes:
        value: Point forecast.
        low: Lower end of the 90 % interval; None where there is none.
        high: Upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Reason:
    """One thing that speaks for or against the merge.

    Attributes:
        feature: Name of the feature.
        value: Its value for this pair.
        percentile: Share of known merges with a lower value, 0 to 1; None if none is known.
        effect: By how much it moves the forecast of retention away from the mean of known merges.
        text: In words.
    """

    feature: str
    value: float
    percentile: float | None
    effect: float | None
    text: str


@dataclasses.dataclass(frozen=True)
class KnownMerge:
    """A merge with known outcome that resembles the one in question.

    Attributes:
        merge: Its name.
        language: Language.
        distance: Distance in standardised features.
        retention: What it kept.
    """

    merge: str
    language: str
    distance: float
    retention: float


@dataclasses.dataclass(frozen=True)
class MergeForecast:
    """Forecast of one merge.

    Attributes:
        models: Names of the parents.
        method: Merge method.
        alignment: none, permutation or orthogonal.
        retention: Language -> retention with its 90 % interval.
        worst: Least retention over languages.
        p_collapse: Probability that the worst language keeps less than half; None if refused.
        p_useful: Probability that the merge beats each parent alone; None if refused.
        verdict: What to do.
        refusal: Why it cannot say; empty if it can.
        reasons: Strongest first.
        nearest: Nearest known merges.
        in_domain: Whether the pair lies among what the predictor was fitted on.
        tiers: Tiers of features used.
        seconds: Tier -> processor seconds that its features took.
        predictor: Identity of the predictor.
        evidence: Feature -> value, everything that was measured; "feature@language" where there is
            a language.
        advice: The verdict in words.
        align_with: Alignment to merge with, where the verdict is "align first".
        oracle: What a trial of the plain average on a few sentences gave: an evaluation, kept apart
            from the forecast.
        notes: What a reader should know: what was not considered, or could not be measured.
    """

    models: tuple[str, ...]
    method: str
    alignment: str
    retention: dict[str, Interval]
    worst: Interval | None
    p_collapse: float | None
    p_useful: float | None
    verdict: Verdict
    refusal: str
    reasons: tuple[Reason, ...]
    nearest: tuple[KnownMerge, ...]
    in_domain: bool
    tiers: tuple[str, ...]
    seconds: dict[str, float]
    predictor: str
    evidence: dict[str, float]
    advice: str = ""
    align_with: str = ""
    oracle: dict[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self)
