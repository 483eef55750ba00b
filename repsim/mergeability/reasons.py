"""Why a forecast is what it is, and what can be said where there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping

from repsim.core.atlas import COLLAPSE
from repsim.core.forecast import Reason
from repsim.mergeability.candidate import NEARBY, Beside, Candidate, MergePredictor, Prediction
from repsim.mergeability.features.catalogue import FEATURES, specs
from repsim.stats.additive import LEAST

#: Reasons that are given.
MOST = 5
#: Effects on retention below this are not worth a sentence.
LEAST_EFFECT = 0.01


def reasons_of(
    prediction: Prediction, candidate: Candidate, predictor: MergePredictor
) -> tuple[Reason, ...]:
    """The strongest effects on the worst language, in words."""
    language = prediction.worst_language
    if language is None:
        return ()
    values = {**candidate.features[language], **prediction.values}
    ordered = sorted(prediction.effects, key=lambda name: -abs(prediction.effects[name]))
    found = []
    for name in ordered[:MOST]:
        effect, value = prediction.effects[name], _value_of(name, values, candidate.alignment)
        if abs(effect) < LEAST_EFFECT or not math.isfinite(value):
            continue
        found.append(_reason(name, value, effect, predictor.beside(name, value, candidate)))
    return tuple(found)


def _value_of(name: str, values: Mapping[str, float], alignment: str) -> float:
    """A value as it was measured; a feature that follows the alignment has that of its rung."""
    if name not in values and name in FEATURES:
        name = FEATURES[name].by_alignment.get(alignment, name)
    return values.get(name, math.nan)


def evidence_of(candidate: Candidate, predictor: MergePredictor) -> tuple[Reason, ...]:
    """What was measured, beside known merges, where no forecast can be given."""
    found = []
    for name in (spec.name for spec in specs() if spec.shown):
        each = [values.get(name, math.nan) for values in candidate.features.values()]
        known = [value for value in each if math.isfinite(value)]
        if known:
            value = sum(known) / len(known)
            found.append(_reason(name, value, None, predictor.beside(name, value, candidate)))
    return tuple(found)


def _reason(name: str, value: float, effect: float | None, beside: Beside | None) -> Reason:
    return Reason(
        feature=name,
        value=value,
        percentile=beside.below if beside else None,
        effect=effect,
        text=_text(name, value, effect, beside),
    )


def _text(name: str, value: float, effect: float | None, beside: Beside | None) -> str:
    """A sentence about one value: what it is, against what, and what it does to the forecast."""
    said = f"{label_of(name)} is {_number(value)}"
    if name == NEARBY:
        said = "known merges that are most alike kept more than features tell"
        said = said if value > 0 else said.replace("more", "less")
    elif name in FEATURES and FEATURES[name].flag and value in (0.0, 1.0):
        said = f"{label_of(name)}: {'yes' if value else 'no'}"
    elif beside:
        said += f", {_place(beside.below)} of the same method"
    if effect is not None:
        said += f", which {'raises' if effect > 0 else 'lowers'} the forecast by {abs(effect):.2f}"
    if beside and not _misleads(effect, beside.typical):
        typical = "less than −1" if beside.typical < LEAST else _number(beside.typical)
        said += f"; known merges with a similar value kept {typical} (median)"
    return said


def _misleads(effect: float | None, typical: float) -> bool:
    """Whether merges with a similar value fared otherwise, for reasons that are not this value."""
    return effect is not None and (effect > 0) != (typical >= COLLAPSE)


def _place(below: float) -> str:
    """Where a value lies, said from the nearer end; others may have the same value."""
    if below >= 0.5:
        return f"higher than in {_share(below)} known merges"
    return f"lower than or equal to that of {_share(1 - below)} known merges"


def _share(share: float) -> str:
    return "all" if share > 0.995 else f"{100 * share:.0f} % of"


def _number(value: float, *, sign: bool = False) -> str:
    size = abs(value)
    text = f"{value:+.2f}" if sign else f"{value:.2f}"
    if size and not 0.005 <= size < 1000:
        text = f"{value:.1e}"
    return text.replace("-", "−")


def label_of(name: str) -> str:
    """Name of a feature for people; its own name if nobody declared it."""
    return FEATURES[name].label if name in FEATURES else name
