"""Relations of pairs: what models explain, what is left, and how sure one may be."""

import itertools

import numpy as np
import pytest

from repsim.stats.bootstrap import members_of
from repsim.stats.dyads import explained_by_members, member_effects, relation

NAMES = "abcdefgh"
PAIRS = list(itertools.combinations(NAMES, 2))
MEMBERS = members_of(PAIRS)


def test_effects_agree_with_a_regression_on_dummies() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=len(PAIRS))
    dummies = np.column_stack([np.ones(len(PAIRS)), MEMBERS[:, 1:]])
    fitted = dummies @ np.linalg.lstsq(dummies, y, rcond=None)[0]
    # Seven dummies and an intercept span less than eight effects do by one direction.
    both = np.column_stack([np.ones(len(PAIRS)), MEMBERS])
    whole = both @ np.linalg.lstsq(both, y, rcond=None)[0]
    assert member_effects(y, MEMBERS) == pytest.approx(whole)
    share = 1 - ((y - whole) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert explained_by_members(y, MEMBERS)[0] == pytest.approx(share)
    assert ((y - whole) ** 2).sum() <= ((y - fitted) ** 2).sum() + 1e-12


def test_effects_alone_leave_nothing() -> None:
    own = np.arange(len(NAMES)) ** 2.0
    y = MEMBERS @ own
    assert explained_by_members(y, MEMBERS)[0] == pytest.approx(1)
    noise = np.random.default_rng(1).normal(size=len(PAIRS))
    assert np.isnan(relation(y, noise, PAIRS, partial=True, draws=20).value)


def test_a_relation_that_models_make_vanishes_with_them() -> None:
    rng = np.random.default_rng(5)
    own = rng.normal(size=len(NAMES))
    x, y = (MEMBERS @ own + 0.1 * rng.normal(size=len(PAIRS)) for _ in range(2))
    plain, partial = (relation(x, y, PAIRS, partial=p, draws=200) for p in (False, True))
    assert plain.value > 0.9
    assert plain.p < 0.05
    assert abs(partial.value) < 0.5
    assert partial.low < 0 < partial.high
    assert partial.p > 0.05


def test_chance_reaches_five_percent_five_times_in_a_hundred() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(40):
        x, y = (MEMBERS @ rng.normal(size=len(NAMES)) + rng.normal(size=len(PAIRS))
                for _ in range(2))  # fmt: skip
        hits += relation(x, y, PAIRS, partial=True, draws=60).p <= 0.05
    assert hits <= 7


def test_without_every_pair_no_p_is_told() -> None:
    x = np.arange(len(PAIRS) - 1.0)
    assert np.isnan(relation(x, x, PAIRS[1:], draws=20).p)
