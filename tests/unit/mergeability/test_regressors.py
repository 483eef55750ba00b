"""Regressors: monotone where they say so, found again from their JSON."""

import numpy as np
import pytest

from repsim.core.errors import InputError, UsageError
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse
from repsim.mergeability.regressors import (
    REGRESSORS,
    FittedRegressor,
    cross_fit,
    matrix_of,
    outcome,
)
from repsim.mergeability.splits import Fold
from repsim.stats.local import spread_of, standardised
from repsim.testing.evidence import planted_evidence

USES = (FeatureUse("distance", -1), FeatureUse("quotient", -1), FeatureUse("noise_feature", 0))
SHIPPING = [name for name in REGRESSORS if REGRESSORS[name].ships]
MONOTONE = [name for name in SHIPPING if "additive" in name or "saturating" in name]


@pytest.fixture(scope="module")
def planted() -> EvidenceTable:
    return planted_evidence(models=12)


def _fit(name: str, table: EvidenceTable) -> FittedRegressor:
    return FittedRegressor.fit(name, table, USES, REGRESSORS[name].grid[0])


@pytest.mark.parametrize("name", SHIPPING)
def test_a_regressor_is_the_same_after_json(name, planted) -> None:
    fitted = _fit(name, planted)
    again = FittedRegressor.from_json(name, fitted.to_json()).remember(planted)
    assert np.array_equal(again.predict(planted), fitted.predict(planted))
    assert again.to_json() == fitted.to_json()


def test_the_blended_one_is_the_mean_of_the_local_and_the_nearest(planted) -> None:
    levels, names = sorted(set(planted.factor)), [use.name for use in USES]
    X, y = matrix_of(planted, names, levels, by_kind=True), outcome(planted)
    signs = [use.direction for use in USES]
    blended, local, nearest = (
        REGRESSORS[name].make(signs, len(levels)).fit(X[::2], y[::2]).predict(X[1::2])
        for name in ("blended", "local", "neighbours")
    )
    np.testing.assert_allclose(blended, np.clip((local + nearest) / 2, -1.0, 1.2), atol=1e-12)
    assert np.abs(blended - local).max() > 0.01


def test_the_spread_of_a_feature_that_no_row_has_is_one() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    centre, scale = spread_of(values)
    assert centre.tolist() == [2.0, 0.0]
    assert scale.tolist() == [1.0, 1.0]
    assert not standardised(values, centre, scale)[2].any()


@pytest.mark.parametrize("name", MONOTONE)
def test_a_forecast_never_rises_with_what_must_harm(name, planted) -> None:
    fitted = _fit(name, planted)
    grid = np.linspace(-1, 3, 60)
    for row in range(0, len(planted), 97):
        one = planted.take(np.full(60, row))
        forecast = fitted.predict(one.with_features({"distance": grid}, {}))
        assert (np.diff(forecast) <= 1e-12).all()


@pytest.mark.parametrize("name", SHIPPING)
def test_effects_add_up_to_the_forecast(name, planted) -> None:
    fitted = _fit(name, planted)
    forecast = fitted.predict(planted)
    inside = (forecast > -0.99) & (forecast < 1.09)
    total = np.sum(list(fitted.effects(planted).values()), axis=0)
    assert np.ptp(forecast[inside] - total[inside]) < 1e-9


def test_curves_may_be_steeper_for_merges_of_another_kind(planted) -> None:
    fitted = _fit("saturating-by-kind", planted)
    assert fitted.to_json()["design"]["kinds"] == ["aligned"]  # nothing is dropped at random there
    layout = fitted.model.layout_
    columns = layout.columns(fitted.matrix(planted))[:, layout.owner == 0]
    once = columns.shape[1] // 2
    aligned = planted["alignment"] != "none"
    assert np.abs(columns[~aligned][:, once:]).max() == 0
    assert np.array_equal(columns[aligned][:, once:], columns[aligned][:, :once])


@pytest.mark.parametrize("name", REGRESSORS)
def test_every_regressor_forecasts_rows_that_it_does_not_know(name, planted) -> None:
    rows = np.arange(len(planted))
    fold = Fold("even", rows[rows % 2 == 1], rows[rows % 2 == 0])
    predicted = cross_fit(name, planted, USES, [fold]).predicted
    assert np.isnan(predicted[fold.train]).all()
    error = np.abs(predicted - outcome(planted))[fold.test].mean()
    assert error < (0.5 if name == "mean" else 0.25)


def test_yardsticks_are_not_stored(planted) -> None:
    for name in set(REGRESSORS) - set(SHIPPING):
        with pytest.raises(UsageError, match="not stored"):
            FittedRegressor.fit(name, planted, USES, REGRESSORS[name].grid[0])
    with pytest.raises(InputError, match="unknown regressor 'forest'"):
        FittedRegressor.from_json("forest", {"form": "forest"})
    with pytest.raises(UsageError, match="unknown regressor"):
        cross_fit("forest", planted, USES, [Fold("x", np.arange(2), np.arange(2))])
