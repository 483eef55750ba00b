import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes, subspace_angles
from scipy.spatial.distance import pdist, squareform

from repsim.measures import measure

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4)) + 0.5
Y = 0.4 * X + 0.3 * RNG.normal(size=(30, 4))


def test_eigenspace_overlap_is_the_sum_of_squared_cosines_of_uncentered_spaces() -> None:
    expected = (np.cos(subspace_angles(X, Y[:, :3])) ** 2).sum() / 4
    assert measure(X, Y[:, :3], "eigenspace_overlap") == pytest.approx(expected, abs=1e-12)


def test_aligned_cosine_rotates_first() -> None:
    turned = X @ orthogonal_procrustes(X, Y)[0]
    lengths = np.linalg.norm(turned, axis=1) * np.linalg.norm(Y, axis=1)
    expected = ((turned * Y).sum(axis=1) / lengths).mean()
    assert measure(X, Y, "aligned_cosine") == pytest.approx(expected, abs=1e-12)


def test_a_zero_row_counts_nothing() -> None:
    x = X.copy()
    x[0] = 0
    assert measure(x, x, "aligned_cosine") == pytest.approx(29 / 30)


def test_uniformity_averages_over_all_pairs() -> None:
    logs = [np.log(np.exp(-2 * squareform(pdist(side)) ** 2).mean()) for side in (X, Y)]
    assert measure(X, Y, "uniformity_difference") == pytest.approx(abs(logs[0] - logs[1]))


def test_magnitude_and_concentricity_are_of_the_mean_row() -> None:
    lengths, gathered = [], []
    for side in (X, Y):
        mean = side.mean(axis=0)
        lengths.append(np.linalg.norm(mean))
        gathered.append((side @ mean / np.linalg.norm(side, axis=1) / lengths[-1]).mean())
    assert measure(X, Y, "magnitude_difference") == pytest.approx(abs(lengths[0] - lengths[1]))
    expected = abs(gathered[0] - gathered[1])
    assert measure(X, Y, "concentricity_difference") == pytest.approx(expected)
