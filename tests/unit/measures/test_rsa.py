import itertools

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import kendalltau, pearsonr, spearmanr

from repsim.measures import measure

RNG = np.random.default_rng(0)
X = RNG.normal(size=(25, 4)) + 1
Y = X @ RNG.normal(size=(4, 6)) + RNG.normal(size=(25, 6))
COMPARISONS = {
    "pearson": lambda a, b: pearsonr(a, b).statistic,
    "spearman": lambda a, b: spearmanr(a, b).statistic,
    "kendall_b": lambda a, b: kendalltau(a, b).statistic,
    "cosine": lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b),
}


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "correlation"])
@pytest.mark.parametrize("comparison", list(COMPARISONS))
def test_value_is_that_of_scipy(metric: str, comparison: str) -> None:
    expected = COMPARISONS[comparison](pdist(X, metric), pdist(Y, metric))
    value = measure(X, Y, "rsa", metric=metric, comparison=comparison)
    assert value == pytest.approx(expected, abs=1e-10)


def test_tied_distances_share_their_ranks() -> None:
    x, y = (RNG.integers(0, 3, size=(25, 3)).astype(float) for _ in range(2))
    expected = spearmanr(pdist(x).round(12), pdist(y).round(12)).statistic
    assert measure(x, y, "rsa") == pytest.approx(expected, abs=1e-10)


def test_whitened_pearson_is_the_generalised_correlation_under_the_noise_covariance() -> None:
    x, y, n = X[:7], Y[:7], 7
    pairs = list(itertools.combinations(range(n), 2))
    contrasts = np.zeros((len(pairs), n))
    for row, (i, j) in zip(contrasts, pairs, strict=True):
        row[[i, j]] = 1, -1
    inverse = np.linalg.inv((contrasts @ contrasts.T) ** 2)
    a, b = (pdist(side, "sqeuclidean") for side in (x, y))
    a, b = a - a.mean(), b - b.mean()
    expected = (a @ inverse @ b) / np.sqrt((a @ inverse @ a) * (b @ inverse @ b))
    value = measure(x, y, "rsa_sqeuclidean_whitened_pearson")
    assert value == pytest.approx(expected, abs=1e-9)


def test_equal_distances_everywhere_have_no_correlation() -> None:
    assert np.isnan(measure(np.eye(25), Y, "rsa"))
    assert np.isnan(measure(np.eye(25), Y, "rsa", comparison="pearson"))
