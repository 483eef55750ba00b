"""Measures of the second row of the catalogue against other implementations.

Numbers called golden come from one run of the package named beside them on `related()`.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.stats import kendalltau, rankdata, spearmanr
from sklearn.cross_decomposition import CCA
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.neighbors import kneighbors_graph

from repsim.measures import Features, get_measure, intrinsic_dimension, measure
from repsim.measures.imbalance import distance_ranks
from repsim.measures.intervals import interval
from repsim.measures.null import draw_permutations, null_values

Array = np.ndarray


def related() -> tuple[Array, Array]:
    """Two noisy linear views of one latent, `[60, 8]` and `[60, 6]`."""
    rng = np.random.default_rng(7)
    latent = rng.normal(size=(60, 4))
    x = latent @ rng.normal(size=(4, 8)) + 0.5 * rng.normal(size=(60, 8)) + 1.0
    y = latent @ rng.normal(size=(4, 6)) + 0.5 * rng.normal(size=(60, 6)) - 2.0
    return x, y


X, Y = related()
FOLDS = np.array_split(np.arange(60), 5)


# -- ranks of distances ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "plain", "tied"),
    [
        # golden: rsatoolbox 0.3.2, compare(..., "rho-a") and "tau-a"
        ("rsa_euclidean_rho_a", 0.692403723262, 0.678314509709),
        ("rsa_euclidean_tau_a", 0.497661227736, 0.484954632992),
    ],
)
def test_comparisons_of_rsatoolbox(name: str, plain: float, tied: float) -> None:
    assert measure(X, Y, name) == pytest.approx(plain, abs=1e-11)
    assert measure(np.round(X), np.round(Y), name) == pytest.approx(tied, abs=1e-11)


def test_rho_a_is_spearman_over_random_orders_of_ties() -> None:
    rng = np.random.default_rng(0)
    a, b = np.round(X[:12]), np.round(Y[:12])
    distances = [pdist(side) for side in (a, b)]
    drawn = []
    for _ in range(800):
        orders = [np.lexsort((rng.random(66), own)).argsort() for own in distances]
        drawn.append(np.corrcoef(*orders)[0, 1])
    error = np.std(drawn) / len(drawn) ** 0.5
    assert abs(measure(a, b, "rsa_euclidean_rho_a") - np.mean(drawn)) < 4 * error
    tau = kendalltau(pdist(a), pdist(b)).statistic
    assert measure(a, b, "rsa_euclidean_tau_a") < tau


def test_mahalanobis_distances_of_scipy() -> None:
    whitened = [pdist(side, "mahalanobis") for side in (X, Y)]
    expected = spearmanr(*whitened).statistic
    assert measure(X, Y, "rsa_mahalanobis") == pytest.approx(expected, abs=1e-9)
    # golden: rsatoolbox 0.3.2 on the squared distances
    assert expected == pytest.approx(0.373830988108, abs=1e-10)


def test_mahalanobis_of_as_many_dimensions_as_rows_is_undefined_and_said() -> None:
    wide = np.random.default_rng(1).normal(size=(20, 30))
    with pytest.warns(UserWarning, match="says little"):
        assert np.isnan(measure(wide, wide, "rsa_mahalanobis"))


def test_riemannian_distance_of_pyriemann() -> None:
    # golden: pyriemann 0.6, distance_riemann of 0.9 n G / tr G + 0.1 I
    assert measure(X, Y, "riemannian") == pytest.approx(8.552888479198, abs=1e-9)


def test_riemannian_distance_needs_no_more_than_the_joint_span() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 5))
    grams = []
    for side in (x, y):
        c = side - side.mean(axis=0)
        g = c @ c.T
        grams.append(0.9 * 40 * g / np.trace(g) + 0.1 * np.eye(40))
    eigenvalues = np.linalg.eigvals(np.linalg.solve(grams[1], grams[0])).real
    expected = np.sqrt((np.log(eigenvalues) ** 2).sum())
    assert measure(x, y, "riemannian") == pytest.approx(expected, rel=1e-8)


# -- clusters, heat, dimension --------------------------------------------------------------------


def test_rtd_lite_of_spanning_trees() -> None:
    scaled = [squareform(pdist(s) / np.quantile(pdist(s), 0.9)) for s in (X, Y)]
    own, other, both = (minimum_spanning_tree(d).sum() for d in (*scaled, np.minimum(*scaled)))
    assert measure(X, Y, "rtd_lite") == pytest.approx((own + other) / 2 - both, abs=1e-9)
    # golden: the same from the finite bars of ripser 0.6.15 in dimension 0 (float32)
    assert measure(X, Y, "rtd_lite") == pytest.approx(1.932869989, abs=1e-6)


def test_rtd_lite_takes_equal_rows() -> None:
    doubled, chosen = np.concatenate([X[:20], X[:20]]), get_measure("rtd_lite")
    assert chosen(doubled, doubled) == pytest.approx(0.0, abs=1e-9)
    assert np.isnan(chosen(np.eye(40)[:, :1], doubled))


def test_imd_is_the_heat_trace_of_the_neighbour_graph() -> None:
    times = np.logspace(-1, 1, 256)
    traces = []
    for side in (X, Y):
        graph = kneighbors_graph(side, 5).toarray()
        graph = np.maximum(graph, graph.T)
        scale = 1 / np.sqrt(graph.sum(axis=1))
        spectrum = np.linalg.eigvals(np.eye(60) - scale[:, None] * graph * scale).real
        traces.append(np.exp(-np.outer(times, spectrum)).sum(axis=1) / 60)
    expected = 1e6 * (np.exp(-2 * (times + 1 / times)) * np.abs(np.subtract(*traces))).max()
    assert measure(X, Y, "imd") == pytest.approx(expected, rel=1e-9)
    # golden: msid of the paper's authors, 4 runs of 3,000 random vectors: 9.6 with error 3.4
    assert expected == pytest.approx(9.6, abs=2 * 3.4)


def test_intrinsic_dimension_of_skdim() -> None:
    # golden: scikit-dimension, TwoNN(discard_fraction=0.1)
    assert intrinsic_dimension(X) == pytest.approx(5.209232389137938, abs=1e-9)
    assert intrinsic_dimension(Y) == pytest.approx(4.6177652121822925, abs=1e-9)
    assert measure(X, Y, "dimension_difference") == pytest.approx(0.5914671769556, abs=1e-9)


def test_intrinsic_dimension_leaves_equal_rows_out_and_is_that_of_a_surface() -> None:
    rng = np.random.default_rng(0)
    sheet = rng.uniform(size=(1500, 2))
    curved = np.column_stack([sheet, np.sin(3 * sheet[:, 0]), sheet[:, 1] ** 2])
    assert intrinsic_dimension(curved) == pytest.approx(2.0, abs=0.15)
    assert np.isfinite(intrinsic_dimension(np.concatenate([curved, curved[:100]])))
    assert np.isnan(intrinsic_dimension(np.ones((20, 3))))


# -- neighbours -----------------------------------------------------------------------------------


def test_information_imbalance_of_dadapy() -> None:
    # golden: dadapy 0.3.4, return_inf_imb_two_selected_coords with k = 1
    for value, golden in (
        (measure(X, Y, "information_imbalance"), 0.22722222222222221),
        (measure(Y, X, "information_imbalance"), 0.235),
    ):
        assert 2 / 60 + 58 / 60 * value == pytest.approx(golden, abs=1e-12)


def test_information_imbalance_by_hand_with_ties_averaged() -> None:
    x, y = np.round(X), np.round(Y)
    apart, other = cdist(x, x) + np.diag([np.inf] * 60), cdist(y, y) + np.diag([np.inf] * 60)
    ranks = np.array([rankdata(row) for row in other]) - 1
    assert np.allclose(distance_ranks(Features(y)).numpy()[~np.eye(60, dtype=bool)],
                       ranks[~np.eye(60, dtype=bool)])  # fmt: skip
    least = np.isclose(apart, apart.min(axis=1, keepdims=True))
    assert least.sum() > 60, "some rows have several nearest ones, which share the place"
    expected = 2 / 58 * np.mean([ranks[i, least[i]].mean() for i in range(60)])
    assert measure(x, y, "information_imbalance") == pytest.approx(expected, abs=1e-6)


def test_information_imbalance_is_one_in_the_mean_under_shuffles() -> None:
    chosen = get_measure("information_imbalance")
    orders = draw_permutations(60, 200, seed=1)
    null = null_values(chosen, [Features(X)], [Features(Y)], orders)[:, 0, 0]
    assert abs(null.mean() - 1) < 4 * null.std() / len(null) ** 0.5


# -- held-out rows --------------------------------------------------------------------------------


def held_out(predict: object) -> float:
    """1 - residual over total of the held-out rows of X, both less the training mean."""
    missed = total = 0.0
    for block in FOLDS:
        rest = np.setdiff1d(np.arange(60), block)
        fitted = predict(Y[rest], X[rest]).predict(Y[block])  # type: ignore[operator]
        missed += ((X[block] - fitted) ** 2).sum()
        total += ((X[block] - X[rest].mean(axis=0)) ** 2).sum()
    return 1 - missed / total


def test_linear_stitching_is_a_ridge_regression_on_held_out_rows() -> None:
    ordinary = held_out(lambda y, x: LinearRegression().fit(y, x))
    assert measure(X, Y, "stitch_linear") >= ordinary - 1e-3
    alphas = np.geomspace(1e-6, 1e4, 60)
    fine = held_out(lambda y, x: RidgeCV(alphas=alphas).fit(y, x))
    assert measure(X, Y, "r2_cv") == pytest.approx(fine, abs=2e-3)


def test_linear_stitching_chooses_its_penalty_where_training_rows_are_fewer_than_units() -> None:
    """120 training rows of width 128: without an intercept the leave-one-out error is rounding."""
    rng = np.random.default_rng(150)
    latent = rng.normal(size=(150, 10))
    x, y = (latent @ rng.normal(size=(10, 128)) + rng.normal(size=(150, 128)) for _ in range(2))
    assert measure(x, y, "stitch_linear") > 0.85


def test_the_interval_of_a_held_out_value_below_minus_one_holds_it() -> None:
    """Held-out R² has no lower end: a value under -1 lies within its interval too."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 60, 5))
    sides, chosen = ([Features(x)], [Features(y)]), get_measure("stitch_orthogonal")
    for values in (np.array([[-2.9]]), np.array([[-0.9]]), np.array([[0.4]])):
        found = interval(chosen, *sides, values, groups=10)
        assert found is not None
        assert found.low[0, 0] < values[0, 0] < found.high[0, 0] < 1


def test_groups_are_nested_on_data_that_need_them() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(200, 6)) * np.geomspace(1, 4, 6)
    order, rotation = rng.permutation(6), np.linalg.qr(rng.normal(size=(6, 6)))[0]
    names = ("stitch_permutation", "stitch_orthogonal", "stitch_linear")
    permuted, rotated, mapped = (
        [measure(x, y, name) for name in names]
        for y in (2 * x[:, order] + 1, x @ rotation, x @ rng.normal(size=(6, 6)))
    )
    assert np.allclose(permuted, 1, atol=1e-9)
    assert rotated[0] < 0.9
    assert np.allclose(rotated[1:], 1, atol=1e-9)
    assert mapped[1] < 0.95
    assert mapped[2] == pytest.approx(1, abs=1e-9)


def test_held_out_values_of_independent_data_stay_low_at_n_under_d() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(100, 80)), rng.normal(size=(100, 80))
    for name in ("stitch_linear", "stitch_orthogonal", "stitch_permutation", "cca_cv"):
        assert measure(x, y, name) < 0.1, name
    assert get_measure("r2")(x, y) > 0.7


def test_held_out_cca_of_scikit_learn() -> None:
    """All components; the variates of one fold are those of scikit-learn's CCA up to sign."""
    expected = []
    for block in FOLDS:
        rest = np.setdiff1d(np.arange(60), block)
        model = CCA(n_components=6, max_iter=20000, tol=1e-13).fit(X[rest], Y[rest])
        a, b = model.transform(X[block], Y[block])
        expected.append(np.mean([np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(6)]))
    assert measure(X, Y, "cca_cv", threshold=1.0) == pytest.approx(np.mean(expected), abs=1e-4)


# -- units ----------------------------------------------------------------------------------------


def test_maximum_match_on_planted_units() -> None:
    """Two units of X lie in the span of Y and the other way round; two do not."""
    rng = np.random.default_rng(0)
    shared, alone, other = (rng.normal(size=(400, 2)) for _ in range(3))
    x = np.hstack([shared, alone])
    y = np.hstack([shared @ np.array([[1.0, 2.0], [-1.0, 1.0]]), other])
    assert measure(x, y, "maximum_match", epsilon=0.2) == 0.5
    assert measure(x, x @ rng.normal(size=(4, 4)), "maximum_match", epsilon=0.2) == 1.0
    assert measure(alone, other, "maximum_match", epsilon=0.2) == 0.0


# -- outputs --------------------------------------------------------------------------------------


def test_distances_of_outputs_of_scipy() -> None:
    from scipy.spatial.distance import jensenshannon
    from scipy.special import rel_entr, softmax

    a, b = X[:, :6], Y
    p, q = softmax(a, axis=1), softmax(b, axis=1)
    kl = (rel_entr(p, q).sum(axis=1) / np.log(2)).mean()
    assert measure(a, b, "output_kl") == pytest.approx(kl, abs=1e-12)
    jsd = (jensenshannon(p, q, axis=1, base=2) ** 2).mean()
    assert measure(a, b, "output_jsd") == pytest.approx(jsd, abs=1e-12)
    other = (p.argmax(axis=1) != q.argmax(axis=1)).mean()
    assert measure(a, b, "output_disagreement") == other


def test_outputs_take_a_vocabulary_that_is_cut_off() -> None:
    """Logits of minus infinity are refused; very low ones count as probability 0."""
    a, b = np.array([[0.0, 1.0, -1e30]]), np.array([[0.0, 1.0, -1e30]])
    assert measure(a, b, "output_kl") == 0.0
    assert measure(a, -b, "output_jsd") == pytest.approx(1.0)
