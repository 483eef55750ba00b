import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

from repsim.measures import Features, measure
from repsim.measures.algebra import half
from repsim.measures.pair_matrices import cosine_grid

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4)) + 1
Y = X[:, :3] ** 2 + RNG.normal(size=(20, 3))


def test_distance_correlation_follows_the_definition() -> None:
    h = np.eye(20) - 1 / 20
    a, b = (h @ squareform(pdist(side)) @ h for side in (X, Y))
    expected = np.sqrt((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean()))
    assert measure(X, Y, "distance_correlation") == pytest.approx(expected, abs=1e-12)


def test_debiased_distance_correlation_of_independent_data_is_about_zero() -> None:
    draws = [RNG.normal(size=(2, 60, 30)) for _ in range(20)]
    debiased = np.mean([measure(x, y, "distance_correlation_debiased") for x, y in draws])
    biased = np.mean([measure(x, y, "distance_correlation") for x, y in draws])
    assert abs(debiased) < 0.02
    assert biased > 0.5


def test_differences_of_distance_matrices() -> None:
    gap = squareform(pdist(X)) - squareform(pdist(Y))
    assert measure(X, Y, "rsm_norm_difference") == pytest.approx(np.linalg.norm(gap))
    expected = np.sqrt((gap[np.triu_indices(20, 1)] ** 2).mean())
    assert measure(X, Y, "stress") == pytest.approx(expected)


def test_half_of_a_symmetric_matrix_keeps_inner_products() -> None:
    a, b = (Features(side).gram for side in (X, Y))
    assert float(half(a) @ half(b)) == pytest.approx(float((a * b).sum()))


@pytest.mark.parametrize("numbers", [1 << 28, 900])
def test_the_grid_is_the_same_when_layers_are_taken_in_groups(
    numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repsim.measures.pair_matrices.TEMPORARY_NUMBERS", numbers)
    xs = [Features(RNG.normal(size=(20, 3))) for _ in range(5)]
    ys = [xs[1], *(Features(RNG.normal(size=(20, 3))) for _ in range(3))]
    grid = cosine_grid(xs, ys, lambda f: torch.flatten(f.gram))
    flat = [[f.gram.flatten() for f in side] for side in (xs, ys)]
    expected = [[float(a @ b / a.norm() / b.norm()) for b in flat[1]] for a in flat[0]]
    np.testing.assert_allclose(grid, expected, atol=1e-12)
