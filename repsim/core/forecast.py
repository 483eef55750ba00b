"""The forecast of one merge before it is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from html import escape
from typing import Any, Literal

from repsim.core.errors import InputError
from repsim.core.formatting import number

Verdict = Literal[
    "merge", "align first", "merge or align first", "keep one parent", "do not merge", "cannot say"
]
#: Lies beside the weights of a merge whose card holds a forecast.
FORECAST_FILE = "repsim_forecast.json"


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
    """One thing that speaks for or against the merge."""

    feature: str
    value: float
    #: Share of known merges with a lower value, 0 to 1; None if none is known.
    percentile: float | None
    #: How far it moves the forecast of retention away from the mean of known merges.
    effect: float | None
    text: str


@dataclasses.dataclass(frozen=True)
class KnownMerge:
    """A merge with known outcome that resembles the one in question."""

    merge: str
    language: str
    #: In standardised features.
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
        align_with: Alignment to merge with, where the verdict names one.
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

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> MergeForecast:
        """A forecast as `to_dict` states it.

        Raises:
            InputError: Fields are missing, or are of another version.
        """
        try:
            kept = {name: Interval(**found) for name, found in document["retention"].items()}
            return cls(
                **{
                    **document,
                    **{name: tuple(document[name]) for name in ("models", "tiers", "notes")},
                    "retention": kept,
                    "worst": Interval(**document["worst"]) if document["worst"] else None,
                    "reasons": tuple(Reason(**found) for found in document["reasons"]),
                    "nearest": tuple(KnownMerge(**found) for found in document["nearest"]),
                }
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"this is no forecast that can be read: {error}",
                hint="make it again with repsim predict",
            ) from None

    @property
    def reasons_for(self) -> tuple[Reason, ...]:
        """Reasons that agree with what is forecast; all evidence where there is no forecast."""
        return tuple(found for found in self.reasons if not self._opposes(found))

    @property
    def reasons_against(self) -> tuple[Reason, ...]:
        """Reasons that the forecast stands in spite of."""
        return tuple(found for found in self.reasons if self._opposes(found))

    def _opposes(self, reason: Reason) -> bool:
        if reason.effect is None or self.p_collapse is None:
            return False
        return (reason.effect > 0) != (self.p_collapse < 0.5)

    def _repr_html_(self) -> str:
        """Verdict, retention by language, and reasons, for notebooks."""
        cells = "".join(
            f"<tr><td>{escape(name)}</td><td>{_shown(found.value)}</td>"
            f"<td>{_shown(found.low)} to {_shown(found.high)}</td></tr>"
            for name, found in self.retention.items()
        )
        head = "<tr><th>language</th><th>retention</th><th>90 % interval</th></tr>"
        table = f"<table><thead>{head}</thead><tbody>{cells}</tbody></table>" if cells else ""
        said = [escape(found.text) for found in self.reasons_for]
        said += [f"but: {escape(found.text)}" for found in self.reasons_against]
        items = "".join(f"<li>{text}</li>" for text in said)
        return (
            f"<p><b>{escape(' + '.join(self.models))}</b>, {escape(self.method)}, alignment "
            f"{escape(self.alignment)}: <b>{escape(self.advice or self.verdict)}</b></p>"
            f"{table}<ul>{items}</ul>"
        )


def _shown(value: float | None) -> str:
    return "–" if value is None else number(value)
