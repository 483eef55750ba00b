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
    """A predicted number with the ends of its 90 % interval; None where there is none."""

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
    kept: float


@dataclasses.dataclass(frozen=True)
class GainForecast:
    """What a merge would keep of what its parents gained over the model they were trained from.

    Gain kept of a language: `(base - merge) / (base - best parent)` in bits per byte. 1 is all that
    training gave that parent, 0 is no better than the base, below 0 is harm.

    Attributes:
        base: Name of that model.
        kept: Language -> gain kept with its 90 % interval; empty if refused.
        worst: Least gain kept over languages.
        p_half: Probability that this is less than a half; None if refused.
        refusal: Why it cannot say; empty if it can.
        nearest: Nearest known merges whose gain kept is known.
        predictor: Identity of the predictor; empty if there is none.
    """

    base: str
    kept: dict[str, Interval] = dataclasses.field(default_factory=dict)
    worst: Interval | None = None
    p_half: float | None = None
    refusal: str = ""
    nearest: tuple[KnownMerge, ...] = ()
    predictor: str = ""


@dataclasses.dataclass(frozen=True)
class MergeForecast:
    """Forecast of one merge.

    Attributes:
        models, method, alignment: The merge; alignment is none, permutation or orthogonal.
        parameters: Parameter of the method -> its value for each model, where it was asked for.
        retention, worst: By language, with its 90 % interval, and the least of them.
        p_collapse: Probability that the worst language keeps less than half; None if refused.
        p_useful: Probability that the merge beats each parent alone; None if refused.
        verdict, advice: What to do, and that in words.
        refusal: Why it cannot say; empty if it can.
        reasons, nearest: Strongest reasons and nearest known merges first.
        in_domain: Whether the pair lies among what the predictor was fitted on.
        tiers, seconds: Tiers of features used, and processor seconds that each took.
        predictor: Identity of the predictor.
        evidence: Feature -> value, everything that was measured; "feature@language" where there is
            a language.
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
    notes: tuple[str, ...] = ()
    gain: GainForecast | None = None
    parameters: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)

    @property
    def way(self) -> str:
        """The method with its parameters, as one types them."""
        return " ".join([self.method, *(f"{n}={v}" for n, v in self.settings.items())])

    @property
    def settings(self) -> dict[str, str]:
        """Parameter -> value as text; one value where all models have the same."""
        return {
            name: ",".join(map(_typed, values[:1] if len({*values}) == 1 else values))
            for name, values in self.parameters.items()
        }

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
            gain = document.get("gain")
            document = {name: value for name, value in document.items() if name != "oracle"}
            return cls(
                **{
                    **document,
                    **{name: tuple(document[name]) for name in ("models", "tiers", "notes")},
                    **_numbers(document, "retention"),
                    "parameters": {
                        name: tuple(values)
                        for name, values in document.get("parameters", {}).items()
                    },
                    "reasons": tuple(Reason(**found) for found in document["reasons"]),
                    "gain": GainForecast(**{**gain, **_numbers(gain, "kept")}) if gain else None,
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
        parts = {"retention": self.retention}
        if self.gain:
            parts[f"gain kept over {escape(self.gain.base)}"] = self.gain.kept
        table = "".join(_html_table(what, found) for what, found in parts.items() if found)
        said = [escape(found.text) for found in self.reasons_for]
        said += [f"but: {escape(found.text)}" for found in self.reasons_against]
        items = "".join(f"<li>{text}</li>" for text in said)
        return (
            f"<p><b>{escape(' + '.join(self.models))}</b>, {escape(self.way)}, alignment "
            f"{escape(self.alignment)}: <b>{escape(self.advice or self.verdict)}</b></p>"
            f"{table}<ul>{items}</ul>"
        )


def _typed(value: float) -> str:
    """A value as one types it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def _numbers(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Numbers by language, the least of them, and known merges, of a forecast as JSON."""
    return {
        name: {language: Interval(**found) for language, found in document[name].items()},
        "worst": Interval(**document["worst"]) if document["worst"] else None,
        # Forecasts before the gain kept was forecast too said "retention" of known merges.
        "nearest": tuple(
            KnownMerge(**{"kept" if key == "retention" else key: v for key, v in found.items()})
            for found in document["nearest"]
        ),
    }


def _html_table(what: str, kept: Mapping[str, Interval]) -> str:
    cells = "".join(
        f"<tr><td>{escape(name)}</td><td>{_shown(found.value)}</td>"
        f"<td>{_shown(found.low)} to {_shown(found.high)}</td></tr>"
        for name, found in kept.items()
    )
    head = f"<tr><th>language</th><th>{what}</th><th>90 % interval</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{cells}</tbody></table>"


def _shown(value: float | None) -> str:
    return "–" if value is None else number(value)
