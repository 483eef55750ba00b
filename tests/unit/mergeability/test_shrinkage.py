"""Shrinkage at the upper end: learnt from models never seen, kept in files, fair to effects."""

import dataclasses

import numpy as np
import pytest

from repsim.mergeability.part import Part, fit_part
from repsim.stats.conformal import KNEE, should_shrink, shrunk
from repsim.testing.evidence import planted_evidence


@pytest.fixture(scope="module")
def table():
    return planted_evidence(models=12)


@pytest.fixture(scope="module")
def part(table) -> Part:
    return fit_part(table, ("table",), kind="additive", blocks=4)[0]


def test_order_stays_and_nothing_below_the_knee_moves() -> None:
    values = np.linspace(-1, 1.2, 300)
    drawn = shrunk(values)
    assert (np.diff(drawn) > 0).all()
    assert (drawn[values <= KNEE] == values[values <= KNEE]).all()
    assert (drawn[values > KNEE] < values[values > KNEE]).all()
    assert np.isnan(shrunk(np.array([np.nan]))).all()


def test_forecasts_are_shrunk_only_where_they_promise_too_much() -> None:
    rng = np.random.default_rng(0)
    kept, groups = rng.uniform(0.0, 1.2, 200), np.arange(200)
    assert not should_shrink(kept + rng.normal(0, 0.05, 200), kept, groups)
    assert should_shrink(np.where(kept > 0.8, kept + 0.3, kept), np.minimum(kept, 0.95), groups)
    assert not should_shrink(np.full(3, np.nan), np.ones(3), np.arange(3))


def test_every_group_has_one_vote() -> None:
    """Many rows of one group that are forecast too high do not speak for all."""
    predicted = np.concatenate([np.full(50, 1.15), np.full(3, 1.1)])
    observed = np.concatenate([np.full(50, 0.9), np.full(3, 1.2)])
    groups = np.array(["one"] * 50 + ["two", "three", "four"])
    assert not should_shrink(predicted, observed, groups)
    assert should_shrink(predicted[:50], observed[:50], groups[:50])


def test_it_is_kept_in_files(part) -> None:
    shrinks = dataclasses.replace(part, shrinks=True)
    assert Part.from_json(shrinks.to_json()).shrinks
    straight = dataclasses.replace(part, shrinks=False)
    assert not Part.from_json(straight.to_json()).shrinks


def test_effects_of_a_shrinking_part_add_up_to_its_forecasts(part, table) -> None:
    shrinks = dataclasses.replace(part, shrinks=True)
    straight = dataclasses.replace(part, shrinks=False)
    plain, drawn = straight.predict(table), shrinks.predict(table)
    assert (plain > KNEE).any()
    assert drawn == pytest.approx(shrunk(plain))
    total = np.sum(list(straight.effects(table).values()), axis=0)
    moved = np.sum(list(shrinks.effects(table).values()), axis=0)
    assert moved == pytest.approx(shrunk(plain) - shrunk(plain - total))
    assert shrinks.forecast(table, table).predicted == pytest.approx(drawn)
