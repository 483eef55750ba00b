import numpy as np
import pytest
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from repsim.measures import measure

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 7)) * np.geomspace(1, 0.02, 7)
Y = X[:, :5] @ RNG.normal(size=(5, 5)) + 0.3 * RNG.normal(size=(80, 5))


def correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cosines of the principal angles between the centered column spaces."""
    return np.cos(subspace_angles(x - x.mean(axis=0), y - y.mean(axis=0)))


def test_canonical_correlations_are_cosines_of_principal_angles() -> None:
    expected = correlations(X, Y)
    assert measure(X, Y, "cca") == pytest.approx(expected.mean(), abs=1e-10)
    assert measure(X, Y, "cca_squared") == pytest.approx((expected**2).mean(), abs=1e-10)


def test_rank_deficient_sides_are_compared_over_their_rank() -> None:
    doubled = np.hstack([X, X[:, :3]])
    assert measure(doubled, Y, "cca") == pytest.approx(measure(X, Y, "cca"), abs=1e-9)


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99])
def test_svcca_is_cca_of_the_leading_principal_components(threshold: float) -> None:
    parts = [PCA(threshold).fit_transform(side) for side in (X, Y)]
    assert parts[0].shape[1] < 7
    expected = correlations(*parts).mean()
    assert measure(X, Y, "svcca", threshold=threshold) == pytest.approx(expected, abs=1e-9)


def test_svcca_of_all_variance_is_cca() -> None:
    assert measure(X, Y, "svcca", threshold=1.0) == pytest.approx(measure(X, Y, "cca"))


def test_pwcca_lies_between_the_extreme_correlations_and_has_two_directions() -> None:
    both = measure(X, Y, "pwcca")
    forward, backward = measure(X, Y, "pwcca_x"), measure(Y, X, "pwcca_x")
    assert both == pytest.approx((forward + backward) / 2)
    assert correlations(X, Y).min() < both < correlations(X, Y).max()


def test_r2_is_that_of_a_linear_regression_of_x_on_y() -> None:
    fitted = LinearRegression().fit(Y, X)
    expected = r2_score(X, fitted.predict(Y), multioutput="variance_weighted")
    assert measure(X, Y, "r2") == pytest.approx(expected, abs=1e-10)
    assert measure(Y, X, "r2") != pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_gulp_is_the_trace_formula_over_covariances(ridge: float) -> None:
    n = len(X)
    x, y = ((a - a.mean(axis=0)) for a in (X, Y))
    x, y = (a * np.sqrt(n) / np.linalg.norm(a) for a in (x, y))
    ix, iy = (np.linalg.inv(a.T @ a / n + ridge * np.eye(a.shape[1])) for a in (x, y))
    sx, sy, sxy = x.T @ x / n, y.T @ y / n, x.T @ y / n
    expected = (
        np.trace(ix @ sx @ ix @ sx)
        + np.trace(iy @ sy @ iy @ sy)
        - 2 * np.trace(ix @ sxy @ iy @ sxy.T)
    )
    assert measure(X, Y, "gulp", ridge=ridge) == pytest.approx(expected, rel=1e-9)
