"""Why a forecast is what it is, and what can be said where there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping

from repsim.core.forecast import Reason
from repsim.mergeability.candidate import NEARBY, Beside, Candidate, MergePredictor, Prediction
from repsim.mergeability.features.catalogue import FEATURES, specs
from repsim.stats.additive import LEAST

#: Reasons that are given.
MOST = 5
#: Share of known merges from which on a value is called high, and from the other end low.
FAR = 2 / 3
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
    effects = {name: (_value_of(name, values, candidate.alignment), effect)
               for name, effect in prediction.effects.items()}  # fmt: skip
    for name in [name for name in effects if name.removesuffix("_worst") != name]:
        # Of two parents the worst pair is the only one: one reason, with both effects.
        value, effect = effects[name]
        mean, more = effects.get(name.removesuffix("_worst"), (math.nan, 0.0))
        if math.isclose(value, mean, abs_tol=0.005):
            effects[name.removesuffix("_worst")] = (mean, effect + more)
            del effects[name]
    strongest = sorted(effects.items(), key=lambda one: -abs(one[1][1]))[:MOST]
    return tuple(
        _reason(name, value, effect, predictor.beside(name, value, candidate))
        for name, (value, effect) in strongest
        if abs(effect) >= LEAST_EFFECT and math.isfinite(value)
    )


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
        said += f", {_place(beside.below)}"
    if effect is not None:
        way = "raises" if effect > 0 else "lowers"
        said += f", which {way} the forecast by {abs(effect):.2f} from the average merge"
    if beside and not _misleads(effect, beside):
        typical, usual = (
            "below −1" if of < LEAST else _number(of) for of in (beside.typical, beside.usual)
        )
        said += (
            f"; known merges with a similar value: median retention {typical}, of all made the "
            f"same way {usual}"
        )
    return said


def _misleads(effect: float | None, beside: Beside) -> bool:
    """Whether merges with a similar value fared otherwise, for reasons that are not this value."""
    return effect is not None and (effect > 0) != (beside.typical >= beside.usual)


def _place(below: float) -> str:
    """Where a value lies, said from the nearer end; others may have the same value."""
    made = "known merges made the same way have"
    if below >= FAR:
        return f"high ({_share(below)} {made} less)"
    if below <= 1 - FAR:
        return f"low ({_share(1 - below)} {made} as much or more)"
    return f"middling ({_share(below)} {made} less)"


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
