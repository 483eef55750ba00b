"""From probabilities to a verdict.

What becomes of a merge is said first: it *survives* (collapse at most 20 % likely), it *collapses*
(at least 50 % likely), or that is *open*. A forecast from fewer tiers says so over a wider range:
where known merges showed that more tiers would often have said the opposite (`Doubt`).

1. *cannot say*: the models do not fit each other, or the predictor refuses.
2. *merge*: it survives and probably beats keeping any one parent.
3. *keep one parent*: it survives, but one parent probably serves as well. That holds for one model
   named twice, too.
4. *align first*: as it is it may collapse, and the verdict on the same method after an alignment is
   *merge*. No table can therefore advise an alignment and advise against what comes of it.
5. *merge or align first*: the same, where what was measured leaves the plain merge open and more
   would settle it: weights do not tell whether an alignment is needed.
6. *cannot say*: the fate of the merge, or of the same merge aligned, is open.
7. *do not merge*: it collapses. The words say whether an alignment would change that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from repsim.core.forecast import Verdict
from repsim.core.formatting import percent
from repsim.mergeability.candidate import Doubt, Prediction

#: Least probability that the merge is useful at which merging is advised.
LEAST_USE = 0.5


@dataclasses.dataclass(frozen=True)
class Decision:
    """A verdict with its words."""

    verdict: Verdict
    advice: str
    align_with: str = ""


def fate(p_collapse: float, doubt: Doubt) -> Literal["survives", "collapses", "open"]:
    """What a probability of collapse says of a merge."""
    if p_collapse <= doubt.low:
        return "survives"
    return "collapses" if p_collapse >= doubt.high else "open"


def decide(
    prediction: Prediction, aligned: Mapping[str, Prediction] | None = None, *, same: bool = False
) -> Decision:
    """Apply the rule of this module; `same`: all parents are one model."""
    if prediction.refusal or prediction.p_collapse is None:
        why = prediction.refusal or "the predictor gives no probability of collapse"
        return Decision("cannot say", f"cannot say: {why}")
    if same:
        return Decision("keep one parent", "keep one parent: the parents are the same model")
    risk = f"a collapse is {_percent(prediction.p_collapse)} likely"
    now = fate(prediction.p_collapse, prediction.doubt)
    if now == "survives":
        return _surviving(prediction, risk)
    known = {way: found for way, found in (aligned or {}).items() if found.p_collapse is not None}
    after = {way: fate(found.p_collapse or 0.0, found.doubt) for way, found in known.items()}
    rescued = ""
    if alive := [way for way in known if after[way] == "survives"]:
        best = max(alive, key=lambda way: (_useful(known[way]), _kept(known[way])))
        rescued = f", after {best} alignment {_percent(known[best].p_collapse or 0.0)}"
        if _useful(known[best]) and now == "open" and prediction.doubt.settled_by:
            return Decision(
                "merge or align first",
                f"merge or align first ({best}): as they are, {risk}{rescued}; whether the plain "
                f"merge suffices is open{_more(prediction)}",
                best,
            )
        if _useful(known[best]):
            return Decision(
                "align first", f"align first ({best}): as they are, {risk}{rescued}", best
            )
        rescued += (
            f", but that the merge then beats each parent alone is {_use(known[best])} likely"
        )
    unsure = [way for way in known if after[way] == "open"]
    if now == "open":
        return Decision("cannot say", f"cannot say: {risk}, too close to call{_more(prediction)}")
    if unsure and not rescued:
        then = " or ".join(f"{way} {_percent(known[way].p_collapse or 0.0)}" for way in unsure)
        return Decision(
            "cannot say",
            f"cannot say: as they are, {risk}; whether alignment rescues the merge is open (a "
            f"collapse after alignment: {then}){_more(known[unsure[0]])}",
        )
    tried = f"; no alignment ({', '.join(known)}) is forecast to rescue it" if known else ""
    as_is = "as they are, " if rescued else ""
    return Decision("do not merge", f"do not merge: {as_is}{risk}{rescued or tried}")


def _surviving(prediction: Prediction, risk: str) -> Decision:
    if prediction.p_useful is None:
        return Decision("merge", f"merge: {risk}; whether it beats each parent is not known")
    use = f"that it beats each parent alone is {_use(prediction)} likely"
    if _useful(prediction):
        return Decision("merge", f"merge: {risk}, {use}")
    return Decision("keep one parent", f"keep one parent: the merge survives ({risk}), but {use}")


def _more(prediction: Prediction) -> str:
    """What would decide it."""
    tier = prediction.doubt.settled_by
    if tier == "T2":
        return " until activations are read (--tier T2)"
    return f"; measure more (--tier {tier})" if tier else "; try the merge (--trial)"


def _useful(prediction: Prediction) -> bool:
    return prediction.p_useful is None or prediction.p_useful >= LEAST_USE


def _kept(prediction: Prediction) -> float:
    return prediction.worst.value if prediction.worst else 0.0


def _use(prediction: Prediction) -> str:
    return _percent(prediction.p_useful or 0.0)


def _percent(share: float) -> str:
    """Whole percent; never a certainty, which no forecast has."""
    return "<1 %" if share < 0.01 else ">99 %" if share > 0.99 else percent(share)
