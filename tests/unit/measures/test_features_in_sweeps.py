"""What sweeps rely on: cheaper ways to the same factors, and memory that can be given back."""

import numpy as np
import pytest
import torch

from repsim.measures import Features, measure
from repsim.measures.nearest import Neighbours

ROWS = np.sort(np.random.default_rng(5).choice(200, 180, replace=False))


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "correlation"])
@pytest.mark.parametrize("ties", [False, True])
def test_neighbours_of_a_subset_come_out_of_the_whole_lists(metric: str, ties: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, size=(200, 4)) + 0.5 if ties else rng.normal(size=(200, 6))
    subset = Features(x).take(ROWS)
    assert subset._remaining_neighbours(10, metric) is not None
    same_lists(subset.neighbours(10, metric), Features(x[ROWS]).neighbours(10, metric))


def same_lists(a: Neighbours, b: Neighbours) -> None:
    """Equal weights of every row; the order of tied rows does not matter."""
    n = len(a.near)
    dense = [torch.zeros(n, n).double().scatter_(1, s.near, s.weights()) for s in (a, b)]
    torch.testing.assert_close(*dense)
    ranks = [torch.zeros(n, n).double().scatter_(1, s.near, s.ranks()) for s in (a, b)]
    torch.testing.assert_close(*(r * (w > 0) for r, w in zip(ranks, dense, strict=True)))


def test_subsets_that_the_lists_do_not_reach_are_searched_anew() -> None:
    # Four clusters of fifty: without most of a cluster, what is left of it has no list of its own.
    rng = np.random.default_rng(1)
    x = np.repeat(rng.normal(size=(4, 8)), 50, axis=0) + 0.01 * rng.normal(size=(200, 8))
    kept = np.r_[0:5, 50:200]
    few, shuffled = Features(x).take(kept), Features(x).take(ROWS[::-1].copy())
    for subset, rows in ((few, kept), (shuffled, ROWS[::-1])):
        assert subset._remaining_neighbours(10, "cosine") is None
        same_lists(subset.neighbours(10), Features(x[rows]).neighbours(10))


def test_leading_svd_is_the_leading_part_of_the_svd() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 20)) * np.logspace(0, -6, 20) + 100
    features = Features(x)
    (u, s, vh), (u_all, s_all, vh_all) = features.leading_svd, features.svd
    assert 10 < len(s) < 20
    np.testing.assert_allclose(s, s_all[: len(s)], rtol=1e-7)
    leading = (u_all[:, : len(s)] * s_all[: len(s)]) @ vh_all[: len(s)]
    np.testing.assert_allclose((u * s) @ vh, leading, atol=1e-6 * float(s[0]))
    np.testing.assert_allclose(u.T @ u, np.eye(len(s)), atol=1e-6)


def test_svcca_falls_back_to_all_components_when_the_leading_ones_are_not_enough() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 12)) * np.logspace(0, -5, 12)
    assert len(Features(x).leading_svd[1]) < 12
    y = rng.normal(size=(300, 12))
    assert measure(x, y, "svcca", threshold=1.0) == pytest.approx(measure(x, y, "cca"), abs=1e-9)


def test_only_what_is_larger_is_forgotten() -> None:
    features = Features(np.random.default_rng(0).normal(size=(100, 4)))
    _ = features.gram, features.svd
    held = features.kept_bytes
    features.forget(larger_than=8 * 100 * 6)
    assert features.kept_bytes == held - 8 * 100 * 100
    features.forget()
    assert features.kept_bytes == 0
