"""Which findings of the source paper an atlas reproduces, in words.

Every sentence is computed from the atlas and states its numbers. Intervals are 95 % bootstrap
intervals over models, since merges share parents; where every merge agrees, the count is stated
instead of an interval, which would have no width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from repsim.core.atlas import Atlas
from repsim.core.errors import UsageError
from repsim.core.formatting import listed, number, percent
from repsim.plots.study.features import Measured, measured_pairs
from repsim.plots.study.outcomes import (
    PLAIN,
    PRETRAINED_APART,
    SETTINGS,
    Outcome,
    cluster,
    outcomes_of,
    recipe_label,
    usual_rate,
)
from repsim.stats import Estimate, auroc_estimate, estimate, share

Verdict = Literal["reproduced", "partly", "not reproduced", "open"]

SOURCE = "On the Limits of Model Merging for Multilinguality in Pre-Training (arXiv 2605.25846)"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A finding of the source paper, and what the atlas says of it.

    Attributes:
        claim: The finding.
        verdict: Whether the atlas shows it; "open" if it cannot tell.
        text: The numbers that the verdict rests on.
    """

    claim: str
    verdict: Verdict
    text: str


def claims(atlas: Atlas) -> list[Claim]:
    """The findings of the source paper, each held against an atlas.

    Args:
        atlas: What a study found.

    Returns:
        Four claims.

    Example:
        >>> from repsim.testing.atlases import planted_atlas
        >>> [claim.verdict for claim in claims(planted_atlas())]
        ['reproduced', 'reproduced', 'reproduced', 'reproduced']
    """
    outcomes = outcomes_of(atlas)
    return [
        _strong_alone(atlas),
        _apart_collapses(outcomes),
        _doses_do_not_carry_over(outcomes),
        _similarity_is_needed(atlas),
    ]


def _strong_alone(atlas: Atlas) -> Claim:
    claim = "Monolingual pretraining is strong in its language."
    from repsim.plots.study.strength import strength_info

    rows = {row.role: row for row in reversed(strength_info(atlas).rows)}
    if not {"monolingual", "mixed"} <= set(rows):
        return Claim(claim, "open", "The atlas has no mixed model beside the monolingual ones.")
    alone, mixed = rows["monolingual"].models, rows["mixed"].models
    gaps = {
        language: min(model.bits for model in mixed[language])
        - float(np.mean([model.bits for model in alone[language]]))
        for language in alone
        if language in mixed
    }
    better = sum(gap > 0 for gap in gaps.values())
    apart = sum(
        max(model.high for model in alone[language]) < min(model.low for model in mixed[language])
        for language in gaps
    )
    worst = min(gaps, key=lambda language: gaps[language])
    text = (
        f"Monolingual models beat the mixed model of {rows['mixed'].label.removeprefix('mixed, ')} "
        f"in {better} of {len(gaps)} languages, by {number(float(np.mean(list(gaps.values()))))} "
        f"bits per byte on average (least: {number(gaps[worst])}, {worst}); in {apart} the 95 % "
        f"intervals over documents lie apart. {_tokens_read(atlas)}"
    )
    return Claim(claim, _verdict(better, len(gaps)), text)


def _tokens_read(atlas: Atlas) -> str:
    """How much the models of the comparison read."""
    rows = [row for row in atlas.models.rows() if row["tokens"] is not None]
    mixed = min((row for row in rows if row["role"] == "mixed"), key=lambda row: row["tokens"])
    alone = {row["tokens"] for row in rows if row["role"] == "monolingual"
             and row["history"] == row["language"] and not row["forked_from"]
             and row["model"].split("/")[0] == mixed["model"].split("/")[0]}  # fmt: skip
    spoken = len(mixed["trained_on"].split("+"))
    if alone == {mixed["tokens"]}:
        return f"Both read as many tokens, the mixed model one part in {spoken} in each language."
    read = listed([f"{tokens:,}" for tokens in sorted(alone)])
    return (
        f"The monolingual models read {read} tokens, the mixed one {mixed['tokens']:,} in {spoken} "
        "languages."
    )


def _verdict(hits: int, count: int) -> Verdict:
    """Reproduced if it holds in every case, partly if in most."""
    if count == 0:
        return "open"
    return "reproduced" if hits == count else "partly" if hits > count / 2 else "not reproduced"


def _apart_collapses(outcomes: Sequence[Outcome]) -> Claim:
    claim = "Any merge of monolingually pretrained models collapses."
    those = [o for o in outcomes if o.setting in PRETRAINED_APART]
    if not those:
        return Claim(claim, "open", "The atlas holds no merge of such models yet.")
    gone = sum(o.collapsed for o in those)
    best = max(those, key=lambda o: o.worst)
    below = share([o.worst < 0 for o in those], [o.parents for o in those])
    by_setting = listed([
        f"{sum(o.collapsed for o in some)} of {len(some)} with {SETTINGS[setting]}"
        for setting in PRETRAINED_APART
        for some in [[o for o in those if o.setting == setting]]
        if some
    ])  # fmt: skip
    text = (
        f"{gone} of {len(those)} merges of models in different languages collapse ({by_setting}), "
        f"over {below.models} models, {len({o.recipe for o in those})} methods and alignments and "
        f"k = {listed([str(k) for k in sorted({o.k for o in those})])}. "
        f"{count_words(below)} end worse than a unigram model in their worst language. "
        f"The best keeps {number(best.worst)} there ({' + '.join(best.parents)}, "
        f"{recipe_label(*best.recipe)})."
    )
    return Claim(claim, _verdict(gone, len(those)), text)


def count_words(found: Estimate) -> str:
    """A share as a count, with its interval in percent where merges differ."""
    count = f"{round(found.value * found.merges)} of {found.merges}"
    if found.value in (0.0, 1.0) or math.isnan(found.low):
        return count
    return f"{count} (95 % interval {100 * found.low:.0f} to {100 * found.high:.0f} %)"


def value_words(found: Estimate) -> str:
    """A value with its interval, where there is one.

    Args:
        found: The estimate.

    Example:
        >>> value_words(Estimate(0.5, -0.1, 0.9, 6, 12))
        '0.50 [−0.10, 0.90]'
    """
    if math.isnan(found.low):
        return number(found.value)
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def _doses_do_not_carry_over(outcomes: Sequence[Outcome]) -> Claim:
    claim = "Merging that works after fine-tuning does not carry over to pretraining apart."
    doses = [o for o in outcomes if o.setting == "doses" and o.recipe == PLAIN]
    apart = [o for o in outcomes if o.setting in PRETRAINED_APART and o.recipe == PLAIN]
    if not doses or not apart:
        missing = "fine-tuned" if not doses else "separately pretrained"
        return Claim(claim, "open", f"The atlas holds no plain mean of {missing} models yet.")
    alive = [share([not o.collapsed for o in those], [o.parents for o in those])
             for those in (doses, apart)]  # fmt: skip
    near = cluster([o.apart for o in doses])
    usual = usual_rate(doses)
    by_dose = []
    for apart_share in sorted(set(near.values())):
        those = [o for o in doses if near[o.apart] == apart_share and o.rate == usual]
        if those:
            middle = estimate([o.worst for o in those], [o.parents for o in those])
            by_dose.append(f"{percent(apart_share)} of training apart: {value_words(middle)}")
    text = (
        f"Of plain means of models fine-tuned from one mixed model, {count_words(alive[0])} live; "
        f"of models pretrained apart, {count_words(alive[1])}. Median retention of the worst "
        f"language with {'; '.join(by_dose)}."
    )
    holds = alive[0].value >= 0.5 and alive[1].value < 0.05
    return Claim(claim, "reproduced" if holds else "partly" if alive[0].value > alive[1].value
                 else "not reproduced", text)  # fmt: skip


def _similarity_is_needed(atlas: Atlas) -> Claim:
    claim = "Similarity of representations is a prerequisite."
    try:
        pairs = measured_pairs(atlas, "unit_correlation_middle", "cka_middle")
    except UsageError:
        return Claim(claim, "open", "No similarities of parents have been measured yet.")
    lives = np.array([not pair.outcome.collapsed for pair in pairs])
    if lives.all() or not lives.any():
        return Claim(claim, "open", "All pairs that were measured have the same outcome.")
    parents = [pair.outcome.parents for pair in pairs]
    same = np.array([pair.values["unit_correlation_middle"] for pair in pairs])
    turned = np.array([pair.values["cka_middle"] for pair in pairs])
    areas = [auroc_estimate(values, lives, parents) for values in (same, turned)]
    least = float(turned[lives].min())
    above = int(np.sum(turned[~lives] >= least))
    collapsed = int((~lives).sum())
    text = (
        f"Among {len(pairs)} pairs, {int(lives.sum())} of whose plain means live, the probability "
        f"that one that lives is the more similar one is {area_words(areas[1])} up to rotation "
        f"(L2, CKA) and {area_words(areas[0])} in the same coordinates (L0). No pair below a "
        f"calibrated CKA of {number(least)} lives, and {above} of {collapsed} that collapse lie "
        f"above it: similarity that ignores coordinates "
        f"{'is needed, and not enough' if above else 'tells these pairs apart'}. No pair below a "
        f"unit-wise correlation of {number(float(same[lives].min()))} lives, and "
        f"{int(np.sum(same[~lives] >= same[lives].min()))} of {collapsed} that collapse lie above "
        f"it.{_what_is_missing(pairs)}"
    )
    low = areas[1].value if math.isnan(areas[1].low) else areas[1].low
    return Claim(claim, "reproduced" if low > 0.5 else "partly" if areas[1].value > 0.5
                 else "not reproduced", text)  # fmt: skip


def _what_is_missing(pairs: Sequence[Measured]) -> str:
    """Whether the pairs that are alike in all but coordinates are among those measured."""
    if any(pair.outcome.setting == "one-language" for pair in pairs):
        return ""
    return (
        " Pairs of one language from two initial weights, which are alike in everything but "
        "coordinates, are not among them."
    )


def area_words(found: Estimate) -> str:
    """An area under the ROC curve; an interval of no width is not stated.

    Args:
        found: The estimate.

    Example:
        >>> area_words(Estimate(1.0, 1.0, 1.0, 6, 12)), area_words(Estimate(0.5, 0.3, 0.7, 6, 12))
        ('1.00 (without exception)', '0.50 [0.30, 0.70]')
    """
    if found.value in (0.0, 1.0):
        return f"{number(found.value)} (without exception)"
    return value_words(found)
