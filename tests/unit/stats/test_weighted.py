"""Correlations under weights are those of repeated rows."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from repsim.stats.weighted import weighted_correlation


@pytest.mark.parametrize(("ranked", "of"), [(False, pearsonr), (True, spearmanr)])
def test_weights_repeat_rows(ranked, of) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 5, 12).astype(float), rng.normal(size=12)
    weights = rng.integers(0, 4, (6, 12)).astype(float)
    found = weighted_correlation(x, y, weights, ranked=ranked)
    for row, value in zip(weights, found, strict=True):
        rows = np.repeat(np.arange(12), row.astype(int))
        assert value == pytest.approx(of(x[rows], y[rows])[0])


def test_nothing_is_told_of_what_does_not_vary() -> None:
    x = np.full(5, 0.1)
    assert np.isnan(weighted_correlation(x, np.arange(5.0), np.ones((2, 5)))).all()
    few = np.array([[1.0, 1.0, 1.0, 0.0, 0.0]])
    assert np.isnan(weighted_correlation(np.arange(5.0), np.arange(5.0), few)).all()
