import itertools

import numpy as np
import pytest

from repsim.measures import Features, compute_grid, get_measure, measure

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5)) + 3
Y = 0.6 * X + RNG.normal(size=(60, 5))
TABLE = np.corrcoef(X.T, Y.T)[:5, 5:]
ORDERS = [list(p) for p in itertools.permutations(range(5))]


def test_unit_correlation_is_the_mean_diagonal_of_the_correlation_table() -> None:
    assert measure(X, Y, "unit_correlation") == pytest.approx(np.diag(TABLE).mean(), abs=1e-12)
    assert measure(X, -Y, "unit_correlation") == pytest.approx(-np.diag(TABLE).mean(), abs=1e-12)


def test_matches_are_the_best_of_all_orders() -> None:
    best = max(np.mean([TABLE[i, p[i]] for i in range(5)]) for p in ORDERS)
    assert measure(X, Y, "hard_match") == pytest.approx(best, abs=1e-12)
    a, b = X - X.mean(axis=0), Y - Y.mean(axis=0)
    cosine = max((a[:, p] * b).sum() for p in ORDERS) / np.linalg.norm(a) / np.linalg.norm(b)
    assert measure(X, Y, "permutation") == pytest.approx(cosine, abs=1e-12)
    distance = min(np.linalg.norm(X[:, p] - Y) for p in ORDERS)
    assert measure(X, Y, "permutation_distance") == pytest.approx(distance, rel=1e-12)


def test_soft_match_takes_each_units_best_in_both_directions() -> None:
    expected = (TABLE.max(axis=0).mean() + TABLE.max(axis=1).mean()) / 2
    assert measure(X, Y, "soft_match") == pytest.approx(expected, abs=1e-12)


def test_a_permuted_twin_is_the_same_to_l1_and_a_stranger_to_l0() -> None:
    twin = X[:, [1, 2, 3, 4, 0]]
    for name in ("hard_match", "soft_match", "permutation"):
        assert measure(X, twin, name) == pytest.approx(1.0)
    assert measure(X, twin, "permutation_distance") == pytest.approx(0.0, abs=1e-12)
    assert measure(X, twin, "identity_match") == 0.0
    assert abs(measure(X, twin, "unit_correlation")) < 0.2


def test_half_of_the_units_in_place_is_an_identity_match_of_that_share() -> None:
    assert measure(X, X[:, [0, 1, 2, 4, 3]], "identity_match") == pytest.approx(3 / 5)


@pytest.mark.parametrize("name", ["unit_correlation", "identity_match"])
def test_units_dead_on_both_sides_are_left_out(name: str) -> None:
    dead = np.hstack([X, np.full((60, 2), 0.1)])
    assert measure(dead, dead, name) == pytest.approx(1.0)
    value = measure(dead, np.hstack([X, RNG.normal(size=(60, 2))]), name)
    assert 5 / 7 - 1e-9 <= value <= 1.0
    if name == "unit_correlation":
        assert value == pytest.approx(5 / 7)


def test_the_grid_counts_living_units_per_pair() -> None:
    xs = [Features(np.hstack([X, np.full((60, 1), c)])) for c in (0.1, 0.2)]
    ys = [xs[0], Features(RNG.normal(size=(60, 6)))]
    grid = compute_grid(get_measure("unit_correlation"), xs, ys)
    expected = [[measure(x, y, "unit_correlation") for y in ys] for x in xs]
    np.testing.assert_allclose(grid, expected, atol=1e-12)


def test_unequal_widths_match_over_the_narrower_side() -> None:
    wide = np.hstack([RNG.normal(size=(60, 3)), X])
    assert measure(X, wide, "hard_match") == pytest.approx(1.0)
    assert measure(wide, X, "hard_match") == pytest.approx(1.0)
    rest = np.linalg.norm(wide[:, :3])
    assert measure(wide, X, "permutation_distance") == pytest.approx(rest, rel=1e-9)
