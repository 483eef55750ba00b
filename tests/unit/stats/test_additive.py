"""Least squares with signs: the optimum, found also where some coefficients have none."""

import numpy as np
import pytest
from scipy.optimize import nnls

from repsim.stats.additive import AdditiveRegressor, signed_least_squares


def test_signed_least_squares_is_the_optimum() -> None:
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


@pytest.mark.parametrize("size", [1, 5, 40])
def test_coefficients_without_a_sign_are_a_difference_of_two(size: int) -> None:
    rng = np.random.default_rng(size)
    x = rng.normal(size=(2 * size, size)) @ (np.eye(size) + 0.4 * rng.normal(size=(size, size)))
    y = rng.normal(size=2 * size)
    signs = rng.choice([-1, 1, 0], size=size)
    flip, free = np.where(signs < 0, -1.0, 1.0), signs == 0
    # The penalty of 0.1 is that many rows more.
    wide = np.concatenate([np.diag(flip), -np.eye(size)[:, free]], axis=1)
    rows = np.concatenate([x, np.sqrt(0.1) * np.eye(size)]) @ wide
    expected = wide @ nnls(rows, np.concatenate([y, np.zeros(size)]))[0]
    found = signed_least_squares(x.T @ x + 0.1 * np.eye(size), x.T @ y, signs)
    assert np.abs(found - expected).max() < 1e-9


def test_a_value_that_is_missing_counts_as_the_mean() -> None:
    x = np.linspace(0, 1, 60)
    X = np.stack([x, np.zeros(60)], axis=1)
    model = AdditiveRegressor((1,), alpha=1e-4).fit(X, x)
    assert model.predict(np.array([[np.nan, 0.0]]))[0] == pytest.approx(x.mean(), abs=0.03)
