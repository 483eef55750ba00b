import itertools

import numpy as np
import pytest
import torch

from repsim.core import InputError, UsageError
from repsim.measures import Features, StreamingCKA, compute_grid, get_measure, measure
from repsim.measures.cka import gram_inner, gram_products

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(12, 3))
X = Z @ RNG.normal(size=(3, 5)) + 0.5 * RNG.normal(size=(12, 5)) + 3
Y = Z @ RNG.normal(size=(3, 4)) + 0.5 * RNG.normal(size=(12, 4)) - 2


def hsic_over_distinct_rows(k: np.ndarray, l: np.ndarray) -> float:
    """The unbiased estimator as an average over distinct pairs, triples and quadruples of rows."""
    n = len(k)
    two = np.mean([k[i, j] * l[i, j] for i, j in itertools.permutations(range(n), 2)])
    three = np.mean([k[i, j] * l[i, q] for i, j, q in itertools.permutations(range(n), 3)])
    four = np.mean([k[i, j] * l[q, r] for i, j, q, r in itertools.permutations(range(n), 4)])
    return float(two - 2 * three + four)


def test_debiased_cka_is_the_average_over_distinct_rows_of_uncentered_kernels() -> None:
    x, y = X[:7], Y[:7]
    k, l = x @ x.T, y @ y.T
    expected = hsic_over_distinct_rows(k, l) / np.sqrt(
        hsic_over_distinct_rows(k, k) * hsic_over_distinct_rows(l, l)
    )
    assert measure(x, y, "cka") == pytest.approx(expected, abs=1e-10)


def test_biased_cka_is_the_ratio_of_traces() -> None:
    h = np.eye(12) - 1 / 12
    k, l = h @ X @ X.T @ h, h @ Y @ Y.T @ h
    expected = np.trace(k @ l) / np.sqrt(np.trace(k @ k) * np.trace(l @ l))
    assert measure(X, Y, "cka_biased") == pytest.approx(expected, abs=1e-12)


def test_lange_cka_leaves_the_diagonal_out() -> None:
    k, l = (a - a.mean(axis=0) for a in (X, Y))
    k, l = k @ k.T, l @ l.T
    off = ~np.eye(12, dtype=bool)
    expected = (k * l)[off].sum() / np.sqrt((k * k)[off].sum() * (l * l)[off].sum())
    assert measure(X, Y, "cka_lange") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "d"), [(500, 768), (300, 100)])
def test_biased_cka_of_independent_data_is_d_over_n_plus_d_and_debiased_is_zero(
    n: int, d: int
) -> None:
    x, y = (np.random.default_rng(i).normal(size=(n, d)) for i in (1, 2))
    biased = get_measure("cka_biased")(x, y)
    assert biased == pytest.approx(d / (n + d), abs=5e-3)
    assert measure(x, y, "cka") == pytest.approx(0.0, abs=0.01)


def massive(seed: int) -> np.ndarray:
    """Float32 activations with three dimensions whose means dwarf everything, as LLMs have."""
    x = np.random.default_rng(seed).normal(size=(500, 64))
    x[:, :3] += np.array([60.0, -35.0, 110.0]) * 10
    return x.astype(np.float32)


def test_float32_keeps_the_value_that_uncentered_sums_lose() -> None:
    x, y = massive(0), massive(1)
    exact = measure(x.astype(np.float64), y.astype(np.float64), "cka")
    assert abs(exact) < 0.05
    single = [Features(a, dtype=torch.float32) for a in (x, y)]
    assert measure(*single, "cka") == pytest.approx(exact, abs=1e-5)
    assert compute_grid(get_measure("cka"), single[:1], single[1:])[0, 0] == pytest.approx(
        exact, abs=1e-5
    )


def test_the_gram_route_and_the_covariance_route_agree() -> None:
    narrow, wide = RNG.normal(size=(60, 3)), RNG.normal(size=(60, 90))
    for a, b in itertools.product((narrow, wide), repeat=2):
        x, y = Features(a), Features(b)
        expected = np.linalg.norm(x.centered.numpy().T @ y.centered.numpy()) ** 2
        assert gram_inner(x, y) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "d", "layers"), [(700, 4, 1), (300, 40, 4)])
def test_gram_products_agree_with_direct_products_on_both_routes(
    n: int, d: int, layers: int
) -> None:
    xs = [Features(RNG.normal(size=(n, d + i))) for i in range(layers)]
    ys = [xs[0], Features(RNG.normal(size=(n, d)))]
    products = gram_products(xs, ys)

    def off_diagonal(x: Features, y: Features) -> float:
        return float((x.gram * y.gram).clone().fill_diagonal_(0).sum())

    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            assert products.cross[i, j] == pytest.approx(off_diagonal(x, y))
        assert products.self_x[i] == pytest.approx(off_diagonal(x, x))


def test_streaming_gives_the_minibatch_value_for_one_pair_and_for_lists() -> None:
    x, y = RNG.normal(size=(60, 5)) + 9, RNG.normal(size=(60, 4))
    y[:, :3] += x[:, :3]
    one, many = StreamingCKA(), StreamingCKA()
    for rows in np.split(np.arange(60), 6):
        one.update(x[rows], y[rows])
        many.update([x[rows], y[rows]], [y[rows]])
    expected = measure(x, y, "cka_minibatch", batch_size=10)
    assert one.value() == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(many.values()[:, 0], [expected, 1.0], atol=1e-12)
    with pytest.raises(UsageError, match=r"\(2, 1\) layers were streamed"):
        many.value()
    with pytest.raises(UsageError, match="this batch has"):
        many.update(x[:10], y[:10])


def test_minibatch_of_everything_is_debiased_cka() -> None:
    assert measure(X, Y, "cka_minibatch", batch_size=12) == pytest.approx(measure(X, Y, "cka"))
    assert measure(X, Y, "cka_minibatch") == pytest.approx(measure(X, Y, "cka"))


@pytest.mark.parametrize(("size", "cuts"), [(5, [5]), (8, [8]), (9, []), (4, [4, 8])])
def test_a_last_batch_may_be_smaller_but_not_under_four_rows(size: int, cuts: list[int]) -> None:
    stream = StreamingCKA()
    for x, y in zip(np.split(X, cuts), np.split(Y, cuts), strict=True):
        stream.update(x, y)
    assert measure(X, Y, "cka_minibatch", batch_size=size) == pytest.approx(stream.value())


def test_impossible_batches_are_refused() -> None:
    with pytest.raises(InputError, match="a batch of 3 rows has no HSIC_1"):
        StreamingCKA().update(X[:3], Y[:3])
    with pytest.raises(InputError, match="no batch was added"):
        StreamingCKA().value()
    with pytest.raises(InputError, match="different numbers of rows"):
        StreamingCKA().update(X[:4], Y[:5])


def test_rbf_cka_is_the_biased_cka_of_gaussian_kernels() -> None:
    from scipy.spatial.distance import pdist, squareform

    h = np.eye(12) - 1 / 12
    kernels = []
    for a in (X, Y):
        distances = pdist(a)
        kernel = np.exp(-squareform(distances**2) / (2 * np.median(distances) ** 2))
        kernels.append(h @ kernel @ h)
    k, l = kernels
    expected = (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())
    assert measure(X, Y, "cka_rbf", debiased=False) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_median_of_all_squared_distances_counts_the_zero_diagonal(n: int) -> None:
    from repsim.measures.relational import squared_bandwidth

    squared = Features(X[:n]).distances("sqeuclidean")
    assert squared_bandwidth(squared, "median_all") == pytest.approx(np.median(squared.numpy()))


def test_rbf_cka_of_mostly_equal_rows_is_undefined() -> None:
    x = np.zeros((12, 2))
    x[0] = 1
    assert np.isnan(get_measure("cka_rbf")(x, Y))
