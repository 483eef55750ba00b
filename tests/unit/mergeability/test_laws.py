"""Candidate laws: monotone where they say so, found again from their JSON, never wild."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import nnls

from repsim.core.errors import InputError, UsageError
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse
from repsim.mergeability.models import MODELS, fitted_from_json
from repsim.mergeability.models.additive import gram_of
from repsim.mergeability.models.linear import signed_least_squares
from repsim.testing.evidence import planted_evidence

USES = (FeatureUse("distance", -1), FeatureUse("quotient", -1), FeatureUse("noise_feature", 0))
SHIPPING = [name for name in MODELS if MODELS[name].ships]


@pytest.fixture(scope="module")
def planted() -> EvidenceTable:
    return planted_evidence(models=16)


def _fit(name: str, table: EvidenceTable):
    kind = MODELS[name]
    return kind.prepare(table, USES).fit(np.arange(len(table)), kind.strengths[0])


@pytest.mark.parametrize("name", SHIPPING)
def test_a_law_is_the_same_after_json(name, planted) -> None:
    law = _fit(name, planted)
    again = fitted_from_json(law.to_json())
    assert np.array_equal(again.predict(planted), law.predict(planted))


@pytest.mark.parametrize("name", [n for n in SHIPPING if "additive" in n or "saturating" in n])
def test_a_forecast_never_rises_with_what_must_harm(name, planted) -> None:
    law = _fit(name, planted)
    grid = np.linspace(-1, 3, 60)
    for row in range(0, len(planted), 97):
        one = planted.take(np.full(60, row))
        forecast = law.predict(one.with_features({"distance": grid}, {}))
        assert (np.diff(forecast) <= 1e-12).all()
        assert forecast[0] - forecast[-1] >= 0


@pytest.mark.parametrize("name", SHIPPING)
def test_effects_add_up_to_the_forecast(name, planted) -> None:
    law = _fit(name, planted)
    forecast = law.predict(planted)
    inside = (forecast > -0.99) & (forecast < 1.09)
    total = np.sum(list(law.effects(planted).values()), axis=0)
    base = forecast[inside] - total[inside]
    assert np.ptp(base) < 1e-9


def test_signed_least_squares_is_the_optimum(planted) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 6))
    y = x @ np.array([1.0, -2.0, 0.5, 0.0, -0.3, 2.0]) + rng.normal(0, 0.1, 80)
    signs = np.array([1, -1, -1, 0, 1, 0])
    gram, moment = x.T @ x, x.T @ y
    found = signed_least_squares(gram, moment, signs)
    assert (found * signs >= 0).all()
    slope = gram @ found - moment  # of the loss: 0 where free, pushing outwards at a bound
    assert np.abs(slope[(found != 0)]).max() < 1e-8
    assert (slope[found == 0] * signs[found == 0] >= -1e-8).all()


@pytest.mark.parametrize("size", [1, 5, 40, 150])
def test_signed_least_squares_agrees_with_lawson_and_hanson(size: int) -> None:
    rng = np.random.default_rng(size)
    x = rng.normal(size=(2 * size, size)) @ (np.eye(size) + 0.4 * rng.normal(size=(size, size)))
    y = rng.normal(size=2 * size)
    signs = rng.choice([-1, 1, 0], size=size)
    flip, free = np.where(signs < 0, -1.0, 1.0), signs == 0
    # Coefficients of either sign are the difference of two that are not negative; the penalty of
    # 0.1 is that many rows more.
    wide = np.concatenate([np.diag(flip), -np.eye(size)[:, free]], axis=1)
    rows = np.concatenate([x, np.sqrt(0.1) * np.eye(size)]) @ wide
    expected = wide @ nnls(rows, np.concatenate([y, np.zeros(size)]))[0]
    gram, moment = x.T @ x + 0.1 * np.eye(size), x.T @ y
    for start in (None, expected, np.ones(size)):
        found = signed_least_squares(gram, moment, signs, start)
        assert np.abs(found - expected).max() < 1e-9


def test_curves_may_be_steeper_for_merges_of_another_kind() -> None:
    table = planted_evidence(models=16)
    law = _fit("additive-by-kind", table)
    assert law.design.kinds == ("aligned",)  # nothing is dropped at random there
    columns = law.design.matrix(table)[:, np.array(law.design.names) == "distance"]
    once = columns.shape[1] // 2
    aligned = table["alignment"] != "none"
    assert np.abs(columns[~aligned][:, once:]).max() == 0
    assert np.array_equal(columns[aligned][:, once:], columns[aligned][:, :once])


@pytest.mark.parametrize("name", [n for n in SHIPPING if "additive" in n or "saturating" in n])
def test_products_taken_apart_by_kind_are_those_of_the_columns(name, planted) -> None:
    rng = np.random.default_rng(0)
    methods = rng.choice(["linear", "dare_ties"], size=len(planted))  # some aligned, some not
    table = dataclasses.replace(planted, columns={**planted.columns, "method": methods})
    made = MODELS[name].prepare(table, USES)
    assert len(made.design.kinds) == (2 if name.endswith("by-kind") else 0)
    x, weight = made.matrix, rng.uniform(size=len(table))
    found = gram_of(made.design, x, made.kinds, weight)
    assert np.abs(found - (x * weight[:, None]).T @ x).max() < 1e-10


def test_yardsticks_are_not_stored(planted) -> None:
    for name in set(MODELS) - set(SHIPPING):
        with pytest.raises(UsageError, match="not stored"):
            _fit(name, planted).to_json()
    with pytest.raises(InputError, match="unknown law 'forest'"):
        fitted_from_json({"law": "forest"})
