"""Retention, collapse and usefulness of a merge.

Of language l, with bits per byte throughout:

- **retention** of a model: `(floor - model) / (floor - parent)`, where `parent` is the merge's own
  parent that is best on l. 1: nothing lost; 0: no better than unigrams. It is not defined where no
  parent is better than unigrams.
- **collapse**: the least retention over languages is below 0.5 (0.25 and 0.75 are reported too).
- **kept**: mean over languages of `max(retention, 0)`. A model that is worse than unigrams is worth
  as much as unigrams, not less, for one would rather use those; without this a merge that is worse
  than unigrams everywhere could pass for useful because each parent is worse still at the other's
  language.
- **advantage**: what the merge keeps minus what the best single parent keeps when that one parent
  serves all languages. The merge is **useful** if the advantage is positive.

- **gain kept**, where the parents were trained from a common base: `(base - model) / (base -
  parent)`, `parent` being the one that is best on l. 1: all that training gave; 0: no better than
  the base; below 0: harm. It is not defined where no parent is better than the base. Over a unigram
  floor merges of fine-tuned models hardly ever collapse; the gain is what may be lost.

Intervals leave out one document at a time in merge, parents and floor alike, and in all languages
that have it. The best parent of a language, the worst language and the best single parent are those
of all documents, and are not chosen anew.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.core.errors import InputError
from repsim.evaluation.bits_per_byte import BitsPerByte, leave_one_out
from repsim.stats.intervals import Interval, jackknife

#: Advantage that is more than rounding: a merge that equals its parent is not better than it.
LEAST_ADVANTAGE = 1e-6
THRESHOLDS = (0.25, 0.5, 0.75)

#: Language -> bits and bytes per document.
Scores = Mapping[str, BitsPerByte]


@dataclasses.dataclass(frozen=True)
class Retention:
    """What a merge kept of one language."""

    estimate: Interval
    parent: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class MergeOutcome:
    """What a merge kept.

    Attributes:
        retention: By language.
        worst_language: The language of least retention; None if it is defined for none.
        worst: Its retention.
        kept: Mean over languages of `max(retention, 0)`.
        best_parent: The parent that keeps most when it serves all languages.
        advantage: What the merge keeps minus what that parent keeps.
    """

    retention: dict[str, Retention]
    worst_language: str | None
    worst: Interval
    kept: Interval
    best_parent: str | None
    advantage: Interval

    def collapsed(self, threshold: float = COLLAPSE) -> bool | None:
        """Whether the least retention is below the threshold; None if there is none."""
        return None if self.worst_language is None else self.worst.value < threshold

    @property
    def useful(self) -> bool | None:
        """Whether the merge beats every one of its parents; None if that is not defined."""
        return None if self.worst_language is None else self.advantage.value > LEAST_ADVANTAGE


def judge(
    merged: Scores,
    parents: Mapping[str, Scores],
    floors: Scores,
    documents: Mapping[str, Sequence[str]] | None = None,
    *,
    level: float = 0.95,
) -> MergeOutcome:
    """Hold a merge against its parents.

    Args:
        merged: Of the merge, by language.
        parents: Of each parent, by its name and language.
        floors: Of the unigram model, by language.
        documents: Ids of the documents by language; equal ids are translations of each other, and
            leave together. Without them no document of one language belongs to one of another.
        level: Nominal coverage of intervals.

    Raises:
        InputError: No parents, or one that was not scored on the same documents.

    Example:
        >>> def score(bits):
        ...     return BitsPerByte(np.array(bits), np.full(len(bits), 10))
        >>> floors = {"eng": score([30.0] * 6), "deu": score([30.0] * 6)}
        >>> english = {"eng": score([10.0] * 6), "deu": score([50.0] * 6)}
        >>> german = {"eng": score([50.0] * 6), "deu": score([10.0] * 6)}
        >>> merge = {"eng": score([15.0] * 6), "deu": score([22.0] * 6)}
        >>> outcome = judge(merge, {"en": english, "de": german}, floors)
        >>> outcome.retention["eng"].estimate.value, outcome.worst_language
        (0.75, 'deu')
        >>> round(outcome.worst.value, 3), outcome.collapsed(), outcome.useful
        (0.4, True, True)
    """
    _check(merged, parents, floors)
    if documents is None:
        documents = {
            language: [f"{language}/{i}" for i in range(len(score.bits))]
            for language, score in merged.items()
        }
    found: dict[str, Retention] = {}
    own: dict[str, np.ndarray] = {}
    others: dict[str, dict[str, np.ndarray]] = {name: {} for name in parents}
    everyone = list(dict.fromkeys(name for ids in documents.values() for name in ids))
    for language, score in merged.items():
        ids = documents[language]
        best = min(parents, key=lambda name: float(parents[name][language]))
        floor = floors[language]
        found[language] = _retention(score, parents[best][language], floor, ids, best, level)
        if math.isnan(found[language].estimate.value):
            continue
        base = leave_one_out(floor, ids, everyone)
        gain = base - leave_one_out(parents[best][language], ids, everyone)
        own[language] = (base - leave_one_out(score, ids, everyone)) / gain
        for name, scores in parents.items():
            left = leave_one_out(scores[language], ids, everyone)
            others[name][language] = (base - left) / gain
    return _overall(found, own, others, level)


def gain_kept(
    merged: Scores,
    parents: Mapping[str, Scores],
    base: Scores,
    documents: Mapping[str, Sequence[str]],
    *,
    level: float = 0.95,
) -> dict[str, Retention]:
    """What a merge kept of that which training gave its parents over their base.

    Args:
        merged: Of the merge, by language.
        parents: Of each parent, by its name and language.
        base: Of the model that the parents were trained from.
        documents: Ids of the documents by language.
        level: Nominal coverage of intervals.

    Returns:
        By language; NaN, with a note, where no parent is better than the base.

    Raises:
        InputError: No parents, or a model that was not scored on the same documents.

    Example:
        >>> def score(bits):
        ...     return BitsPerByte(np.array(bits), np.full(len(bits), 10))
        >>> base, german = {"deu": score([20.0] * 6)}, {"deu": score([16.0] * 6)}
        >>> merge = {"deu": score([17.0] * 6)}
        >>> ids = {"deu": list("abcdef")}
        >>> round(gain_kept(merge, {"de": german}, base, ids)["deu"].estimate.value, 6)
        0.75
    """
    _check(merged, parents, base)
    found = {}
    for language, score in merged.items():
        best = min(parents, key=lambda name: float(parents[name][language]))
        found[language] = _retention(
            score, parents[best][language], base[language], documents[language], best, level,
            than="the base",
        )  # fmt: skip
    return found


def _check(merged: Scores, parents: Mapping[str, Scores], floors: Scores) -> None:
    if not parents:
        raise InputError("a merge is held against its parents, and none were given")
    for name, scores in {**parents, "what it is held against": floors}.items():
        for language, score in merged.items():
            if language not in scores:
                raise InputError(f"{name} was not scored on {language}")
            if not np.array_equal(scores[language].sizes, score.sizes):
                raise InputError(f"{name} was scored on other documents of {language}")


def _retention(
    merged: BitsPerByte,
    parent: BitsPerByte,
    floor: BitsPerByte,
    ids: Sequence[str],
    name: str,
    level: float,
    than: str = "unigrams",
) -> Retention:
    base = leave_one_out(floor, ids, ids)
    gain = base - leave_one_out(parent, ids, ids)
    if gain[0] <= 0:
        return Retention(
            Interval(math.nan), name, f"not defined: no parent is better than {than} ({name})"
        )
    note = ""
    if jackknife(gain, level).low <= 0:
        note = f"doubtful: {name} is not clearly better than {than}"
    with np.errstate(divide="ignore"):
        ratio = (base - leave_one_out(merged, ids, ids)) / gain
    return Retention(jackknife(ratio, level), name, note)


def _overall(
    found: dict[str, Retention],
    own: dict[str, np.ndarray],
    others: dict[str, dict[str, np.ndarray]],
    level: float,
) -> MergeOutcome:
    if not own:
        none = Interval(math.nan)
        return MergeOutcome(found, None, none, none, None, none)
    worst = min(own, key=lambda language: float(own[language][0]))
    kept = _kept(own)
    single = {name: _kept(tracks) for name, tracks in others.items()}
    best = max(single, key=lambda name: float(single[name][0]))
    return MergeOutcome(
        retention=found,
        worst_language=worst,
        worst=found[worst].estimate,
        kept=jackknife(kept, level),
        best_parent=best,
        advantage=jackknife(kept - single[best], level),
    )


def _kept(tracks: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(np.mean([np.maximum(track, 0.0) for track in tracks.values()], axis=0))
