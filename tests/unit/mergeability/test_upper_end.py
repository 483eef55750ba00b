"""The bend at the upper end: learnt from models never seen, kept in files, fair to effects."""

import dataclasses

import numpy as np
import pytest

from repsim.mergeability.part import Part, fit_part
from repsim.mergeability.upper_end import BEND, bent, should_bend
from repsim.testing.evidence import planted_evidence


@pytest.fixture(scope="module")
def table():
    return planted_evidence(models=12)


@pytest.fixture(scope="module")
def part(table) -> Part:
    return fit_part(table, ("table",), kind="additive", blocks=4)


def test_order_stays_and_nothing_below_the_bend_moves() -> None:
    values = np.linspace(-1, 1.2, 300)
    drawn = bent(values)
    assert (np.diff(drawn) > 0).all()
    assert (drawn[values <= BEND] == values[values <= BEND]).all()
    assert (drawn[values > BEND] < values[values > BEND]).all()
    assert np.isnan(bent(np.array([np.nan]))).all()


def test_a_law_is_bent_only_where_it_promises_too_much() -> None:
    rng = np.random.default_rng(0)
    kept, groups = rng.uniform(0.0, 1.2, 200), np.arange(200)
    assert not should_bend(kept + rng.normal(0, 0.05, 200), kept, groups)
    assert should_bend(np.where(kept > 0.8, kept + 0.3, kept), np.minimum(kept, 0.95), groups)
    assert not should_bend(np.full(3, np.nan), np.ones(3), np.arange(3))


def test_every_group_has_one_vote() -> None:
    """Many rows of one group that are foretold too high do not bend the law for all."""
    predicted = np.concatenate([np.full(50, 1.15), np.full(3, 1.1)])
    observed = np.concatenate([np.full(50, 0.9), np.full(3, 1.2)])
    groups = np.array(["one"] * 50 + ["two", "three", "four"])
    assert not should_bend(predicted, observed, groups)
    assert should_bend(predicted[:50], observed[:50], groups[:50])


def test_it_is_kept_in_files_and_older_files_have_none(part) -> None:
    bends = dataclasses.replace(part, bends=True)
    assert Part.from_json(bends.to_json()).bends
    older = bends.to_json()
    del older["bends"]
    assert not Part.from_json(older).bends


def test_a_bent_part_foretells_bent_values_and_its_effects_add_up_to_them(part, table) -> None:
    bends = dataclasses.replace(part, bends=True)
    straight = dataclasses.replace(part, bends=False)
    law, drawn = straight.predict(table), bends.predict(table)
    assert (law > BEND).any()
    assert drawn == pytest.approx(bent(law))
    total = np.sum(list(straight.effects(table).values()), axis=0)
    moved = np.sum(list(bends.effects(table).values()), axis=0)
    assert moved == pytest.approx(bent(law) - bent(law - total))
    assert bends.forecast(table, table).predicted == pytest.approx(drawn)
