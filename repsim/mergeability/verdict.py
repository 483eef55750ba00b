"""From probabilities to a verdict.

The rule, in this order:

1. *cannot say*: the models do not fit each other, or the predictor refuses.
2. *merge*: collapse is unlikely (probability at most 0.2) and the merge probably beats keeping any
   one parent (probability at least 0.5).
3. *align first*: merged as they are the models may collapse, and the same method is unlikely to
   after alignment. Of two alignments that one is named whose worst language keeps more.
   That the merge lives is what counts here; the words say if one parent alone would serve as well.
4. *do not merge*: everything else. That includes merges that would live, but of which one parent
   alone would serve all languages as well, and merges of which the predictor is not sure enough.

A half-sure forecast leads to "do not merge" and not to "cannot say": the latter is kept for cases
that the predictor knows nothing of, the former says at which risk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from repsim.core.forecast import Verdict
from repsim.core.formatting import percent
from repsim.mergeability.candidate import Prediction

#: Largest probability of collapse at which merging is advised.
MOST_RISK = 0.2
#: Least probability that the merge is useful at which merging is advised.
LEAST_USE = 0.5


@dataclasses.dataclass(frozen=True)
class Decision:
    """A verdict with its words."""

    verdict: Verdict
    advice: str
    align_with: str = ""


def decide(prediction: Prediction, aligned: Mapping[str, Prediction] | None = None) -> Decision:
    """Apply the rule of this module."""
    if prediction.refusal or prediction.p_collapse is None:
        why = prediction.refusal or "the predictor gives no probability of collapse"
        return Decision("cannot say", f"cannot say: {why}")
    risk = f"a collapse is {_percent(prediction.p_collapse)} likely"
    if _lives(prediction):
        return _living(prediction, risk)
    if best := _best_alive(aligned or {}):
        found = (aligned or {})[best]
        caveat = "" if _useful(found) else ", though one parent alone would serve as well"
        return Decision(
            "align first",
            f"align first ({best}): as they are, {risk}, after that alignment "
            f"{_percent(found.p_collapse or 0.0)}{caveat}",
            best,
        )
    unsure = " (the predictor is not sure)" if prediction.p_collapse < 0.5 else ""
    tried = f"; no alignment ({', '.join(aligned)}) is forecast to rescue it" if aligned else ""
    return Decision("do not merge", f"do not merge: {risk}{unsure}{tried}")


def _living(prediction: Prediction, risk: str) -> Decision:
    if prediction.p_useful is None:
        return Decision("merge", f"merge: {risk}; whether it beats each parent is not known")
    use = f"that it beats each parent alone is {_percent(prediction.p_useful)} likely"
    if _useful(prediction):
        return Decision("merge", f"merge: {risk}, {use}")
    return Decision(
        "do not merge", f"do not merge, keep one parent: it would live ({risk}), but {use}"
    )


def _lives(prediction: Prediction) -> bool:
    return prediction.p_collapse is not None and prediction.p_collapse <= MOST_RISK


def _useful(prediction: Prediction) -> bool:
    return prediction.p_useful is None or prediction.p_useful >= LEAST_USE


def _best_alive(aligned: Mapping[str, Prediction]) -> str:
    """The alignment after which the worst language keeps most, among those that live."""
    alive = {name: found for name, found in aligned.items() if _lives(found)}

    def kept(name: str) -> float:
        worst = alive[name].worst
        return worst.value if worst else 0.0

    return max(alive, key=kept) if alive else ""


def _percent(share: float) -> str:
    """Whole percent; never a certainty, which no forecast has."""
    return "<1 %" if share < 0.01 else ">99 %" if share > 0.99 else percent(share)
