"""Retention, collapse and usefulness follow their definitions; intervals cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from repsim.core.errors import InputError
from repsim.evaluation.bits_per_byte import BitsPerByte, leave_one_out
from repsim.evaluation.retention import Retention, gain_kept, judge
from repsim.stats.intervals import Interval, jackknife, wilson

SIZES = np.array([100, 250, 80, 400, 120, 300, 90])


def at(level: float) -> BitsPerByte:
    """Every document at so many bits per byte."""
    return BitsPerByte(level * SIZES, SIZES)


FLOORS = {"eng": at(2.5), "deu": at(2.5)}
ENGLISH = {"eng": at(1.5), "deu": at(5.0)}
GERMAN = {"eng": at(5.0), "deu": at(1.5)}
PARENTS = {"en": ENGLISH, "de": GERMAN}


def test_a_parent_retains_one_and_unigrams_zero() -> None:
    parent = judge(ENGLISH, PARENTS, FLOORS)
    assert parent.retention["eng"].estimate == Interval(1.0, 1.0, 1.0)
    assert parent.retention["eng"].parent == "en"
    assert parent.advantage.value == 0.0
    assert parent.useful is False
    unigrams = judge(FLOORS, PARENTS, FLOORS)
    assert [kept.estimate.value for kept in unigrams.retention.values()] == [0.0, 0.0]


def test_collapse_is_decided_by_the_worst_language() -> None:
    outcome = judge({"eng": at(1.6), "deu": at(2.1)}, PARENTS, FLOORS)
    assert outcome.worst_language == "deu"
    assert outcome.worst.value == pytest.approx(0.4)
    assert [outcome.collapsed(t) for t in (0.25, 0.5, 0.75)] == [False, True, True]


@pytest.mark.parametrize(("levels", "useful"), [((1.9, 1.9), True), ((2.1, 2.1), False),
                                                ((3.0, 3.0), False)])  # fmt: skip
def test_a_merge_is_useful_if_it_keeps_more_than_any_one_parent(
    levels: tuple[float, float], useful: bool
) -> None:
    outcome = judge({"eng": at(levels[0]), "deu": at(levels[1])}, PARENTS, FLOORS)
    assert outcome.useful is useful
    assert outcome.advantage.value == pytest.approx(max(2.5 - levels[0], 0) - 0.5)


def test_a_language_that_no_parent_knows_is_left_out_and_said() -> None:
    outcome = judge(ENGLISH, {"en": ENGLISH}, FLOORS)
    assert math.isnan(outcome.retention["deu"].estimate.value)
    assert "no parent is better than unigrams" in outcome.retention["deu"].note
    assert outcome.worst_language == "eng"
    nothing = judge({"deu": at(3.0)}, {"en": ENGLISH}, FLOORS)
    assert nothing.collapsed() is None
    assert nothing.useful is None


def test_a_parent_that_hardly_beats_unigrams_makes_retention_doubtful() -> None:
    noise = np.array([1.0, -1.2, 1.1, -1.0, 0.9, -1.1, 1.0])
    parent = {"eng": BitsPerByte(2.49 * SIZES + noise * SIZES, SIZES)}
    kept = judge({"eng": at(2.4)}, {"en": parent}, {"eng": at(2.6)}).retention["eng"]
    assert kept.note == "doubtful: en is not clearly better than unigrams"


def test_the_interval_is_the_paired_delete_one_jackknife() -> None:
    rng = np.random.default_rng(0)
    floor, parent, merged = (
        BitsPerByte((level + rng.normal(0, 0.1, 7)) * SIZES, SIZES) for level in (2.5, 1.5, 1.9)
    )
    found = judge({"x": merged}, {"p": {"x": parent}}, {"x": floor}).retention["x"].estimate

    def ratio(keep: np.ndarray) -> float:
        f, p, m = (s.bits[keep].sum() / SIZES[keep].sum() for s in (floor, parent, merged))
        return float((f - m) / (f - p))

    everyone = np.arange(7)
    left_out = np.array([ratio(np.delete(everyone, i)) for i in everyone])
    error = math.sqrt(6 / 7 * ((left_out - left_out.mean()) ** 2).sum())
    assert found.value == pytest.approx(ratio(everyone))
    assert (found.high - found.low) / 2 == pytest.approx(2.446912 * error, rel=1e-6)


def test_translations_leave_together() -> None:
    """Opposite errors in two languages cancel in their mean if documents are paired."""
    wave = np.array([1, -1, 1, -1, 1, -1, 0]) * 0.2 * SIZES.mean()
    up, down = (BitsPerByte(1.9 * SIZES + sign * wave, SIZES) for sign in (1, -1))
    merged = {"eng": up, "deu": down}
    ids = [str(i) for i in range(7)]
    paired = judge(merged, PARENTS, FLOORS, {"eng": ids, "deu": ids}).kept
    apart = judge(merged, PARENTS, FLOORS).kept
    assert paired.high - paired.low < 1e-9 < apart.high - apart.low


def test_the_interval_covers_the_population() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        sizes = rng.integers(500, 5000, 40)
        score = BitsPerByte(rng.normal(1.5, 0.3, 40) * sizes, sizes)
        ids = [str(i) for i in range(40)]
        found = jackknife(leave_one_out(score, ids, ids))
        hits += found.low < 1.5 < found.high
    assert 0.91 < hits / 300 < 0.985


def test_few_documents_give_no_interval() -> None:
    assert math.isnan(jackknife(np.ones(5)).low)
    assert jackknife(np.ones(6)).low == 1.0
    assert math.isnan(wilson(0, 0).value)


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(InputError, match="held against its parents, and none were given"):
        judge(ENGLISH, {}, FLOORS)
    with pytest.raises(InputError, match="en was not scored on deu"):
        judge(ENGLISH, {"en": {"eng": at(1.0)}}, FLOORS)
    other = {"eng": BitsPerByte(np.ones(2), np.ones(2)), "deu": at(1.0)}
    with pytest.raises(InputError, match="en was scored on other documents of eng"):
        judge(ENGLISH, {"en": other}, FLOORS)


def test_gain_kept_is_held_against_the_base() -> None:
    base, parents = {"deu": at(2.0)}, {"en": {"deu": at(2.2)}, "de": {"deu": at(1.6)}}
    ids = {"deu": [str(i) for i in range(len(SIZES))]}

    def gain(level: float) -> Retention:
        return gain_kept({"deu": at(level)}, parents, base, ids)["deu"]

    assert gain(1.6).estimate.value == pytest.approx(1.0)
    assert gain(2.0).estimate.value == pytest.approx(0.0)
    assert gain(1.7).estimate.value == pytest.approx(0.75)
    assert gain(2.4).estimate.value == pytest.approx(-1.0)
    assert gain(1.7).parent == "de"


def test_gain_kept_is_not_defined_where_no_parent_gained() -> None:
    ids = {"deu": [str(i) for i in range(len(SIZES))]}
    found = gain_kept({"deu": at(1.9)}, {"en": {"deu": at(2.2)}}, {"deu": at(2.0)}, ids)["deu"]
    assert math.isnan(found.estimate.value)
    assert found.note == "not defined: no parent is better than the base (en)"
