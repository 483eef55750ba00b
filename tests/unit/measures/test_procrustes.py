import numpy as np
import pytest
import torch
from scipy import linalg, spatial

from repsim.measures import Features, compute_grid, get_measure, measure
from repsim.measures.procrustes import aligned_residual, exact_nuclear_norm, nuclear_norm

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 6)) + 4
Y = X @ RNG.normal(size=(6, 6)) + RNG.normal(size=(50, 6))
ROTATION = np.linalg.qr(RNG.normal(size=(6, 6)))[0]


def test_similarity_squared_is_one_minus_the_disparity_of_scipy() -> None:
    disparity = spatial.procrustes(X, Y)[2]
    assert measure(X, Y, "bures") ** 2 == pytest.approx(1 - disparity, abs=1e-12)
    assert np.cos(measure(X, Y, "procrustes")) == pytest.approx(np.sqrt(1 - disparity))


def test_uncentered_distance_is_what_the_best_rotation_of_scipy_leaves() -> None:
    rotation, _ = linalg.orthogonal_procrustes(X, Y)
    expected = np.linalg.norm(X @ rotation - Y)
    assert measure(X, Y, "procrustes_uncentered") == pytest.approx(expected, rel=1e-10)
    shifted = measure(X + 100, Y, "procrustes_size_and_shape")
    centred = [a - a.mean(axis=0) for a in (X, Y)]
    rotation, _ = linalg.orthogonal_procrustes(*centred)
    assert shifted == pytest.approx(np.linalg.norm(centred[0] @ rotation - centred[1]))


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-6, 1e-4])
def test_small_distances_keep_their_digits(noise: float) -> None:
    e = RNG.normal(size=X.shape)
    y = (X + noise * e) @ ROTATION
    # To first order the angle is the residual; a rotation takes up part of it.
    bound = noise * np.linalg.norm(e) / np.linalg.norm(X - X.mean(axis=0))
    angle = measure(X, y, "procrustes")
    assert 0.5 * bound <= angle + 1e-14 <= 1.01 * bound + 1e-13
    assert compute_grid(get_measure("procrustes"), [Features(X)], [Features(y)])[
        0, 0
    ] == pytest.approx(angle, rel=1e-6, abs=1e-13)


def test_widths_may_differ_and_the_narrower_side_is_padded() -> None:
    padded = np.hstack([X, np.zeros((50, 3))])
    wider = RNG.normal(size=(50, 9))
    for name in ("procrustes", "procrustes_size_and_shape", "procrustes_uncentered"):
        assert measure(X, wider, name) == pytest.approx(measure(padded, wider, name), rel=1e-9)
        assert measure(wider, X, name) == pytest.approx(measure(X, wider, name), rel=1e-9)
    assert aligned_residual(torch.from_numpy(padded), torch.from_numpy(X)) < 1e-12


@pytest.mark.parametrize("smallest", [1e-1, 1e-6, 1e-12, 0.0])
def test_nuclear_norm_by_eigenvalues_is_exact_however_ill_conditioned(smallest: float) -> None:
    u, v = (np.linalg.qr(RNG.normal(size=(40, 40)))[0] for _ in range(2))
    s = np.append(np.geomspace(1, max(smallest, 1e-3), 20), np.full(20, smallest))
    matrix = torch.from_numpy((u * s) @ v)
    assert nuclear_norm(matrix) == pytest.approx(s.sum(), rel=2e-9)
    assert exact_nuclear_norm(matrix) == pytest.approx(s.sum(), rel=1e-12)
    assert nuclear_norm(matrix[:, :15]) == pytest.approx(exact_nuclear_norm(matrix[:, :15]))


def test_shape_metric_is_procrustes_at_one_and_cca_at_zero() -> None:
    assert measure(X, Y, "shape", alpha=1.0) == pytest.approx(measure(X, Y, "procrustes"))
    assert np.cos(measure(X, Y, "shape", alpha=0.0)) == pytest.approx(measure(X, Y, "cca"))
