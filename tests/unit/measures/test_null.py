import numpy as np
import pytest

from repsim.core import UsageError
from repsim.measures import as_features, compute_grid, get_measure
from repsim.measures.null import draw_permutations, null_values, permutation_null, summarise


def layers(seed: int, count: int, n: int = 60, d: int = 6) -> list:
    rng = np.random.default_rng(seed)
    return [as_features(rng.normal(size=(n, d)) + k) for k in range(count)]


@pytest.mark.parametrize(
    "name", ["rsa_sqeuclidean_cosine", "rsa_correlation_pearson", "cka_rbf_median_all"]
)
def test_reindexed_matrices_give_what_the_measure_gives_on_shuffled_rows(name: str) -> None:
    measure, xs, ys = get_measure(name), layers(0, 3), layers(1, 2)
    orders = draw_permutations(60, 3, seed=0)
    fast = null_values(measure, xs, ys, orders)
    slow = np.stack([compute_grid(measure, xs, [y.permuted(o) for y in ys]) for o in orders])
    np.testing.assert_allclose(fast, slow, atol=1e-5)


def test_blocks_of_pairs_and_chunks_of_layers_do_not_change_the_products(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measure, xs, ys = get_measure("cka_biased"), layers(0, 3), layers(1, 4)
    orders = draw_permutations(60, 2, seed=0)
    whole = null_values(measure, xs, ys, orders)
    monkeypatch.setattr("repsim.measures.pair_matrices.BLOCK", 17)
    monkeypatch.setattr("repsim.measures.pair_matrices.CHUNK_BYTES", 4 * 60 * 60 * 2)
    np.testing.assert_allclose(null_values(measure, xs, ys, orders), whole, atol=1e-6)


def test_debiased_cka_has_null_mean_zero_and_biased_has_its_floor() -> None:
    n, d = 200, 100
    rng = np.random.default_rng(3)
    xs, ys = ([as_features(rng.normal(size=(n, d)))] for _ in range(2))
    orders = draw_permutations(n, 60, seed=1)
    nulls = {
        name: permutation_null(
            get_measure(name), xs, ys, compute_grid(get_measure(name), xs, ys), orders
        )
        for name in ("cka", "cka_biased", "mutual_knn")
    }
    assert abs(nulls["cka"].mean[0, 0]) < 0.01
    # White independent data: d / (n + d) for the biased estimator, k / (n - 1) for neighbours.
    assert nulls["cka_biased"].mean[0, 0] == pytest.approx(d / (n + d), abs=0.02)
    assert nulls["mutual_knn"].mean[0, 0] == pytest.approx(10 / (n - 1), abs=0.005)


def test_calibrated_score_is_zero_at_the_null_and_one_on_identical_input() -> None:
    null = np.random.default_rng(0).normal(0.4, 0.02, size=(200, 1, 2))
    for name, identical in (("cka_biased", 1.0), ("procrustes", 0.0)):
        measure = get_measure(name)
        summary = summarise(measure, np.array([[identical, 0.4]]), null)
        assert summary.calibrated[0, 0] == pytest.approx(1.0)
        at_null = summarise(measure, summary.q95, null)
        assert np.allclose(at_null.calibrated, 0)


def test_p_values_count_the_shuffles_that_are_at_least_as_similar() -> None:
    null = np.linspace(0.0, 0.98, 99)[:, None, None] * np.ones((1, 1, 2))
    values = np.array([[0.5, 2.0]])
    similar = summarise(get_measure("cka"), values, null)
    assert similar.p_value[0, 1] == pytest.approx(1 / 100)
    assert similar.p_value[0, 0] == pytest.approx((1 + np.sum(null[:, 0, 0] >= 0.5 - 1e-9)) / 100)
    distant = summarise(get_measure("procrustes"), values, null)
    assert distant.p_value[0, 1] == pytest.approx(1.0)
    assert distant.q95[0, 0] == pytest.approx(np.quantile(null[:, 0, 0], 0.05))


def test_adjusted_p_compares_with_the_best_cell_of_each_shuffle() -> None:
    null = np.zeros((19, 2, 2))
    null[4, 1, 1] = 0.7
    summary = summarise(get_measure("cka"), np.full((2, 2), 0.6), null)
    assert summary.p_value[0, 0] == pytest.approx(0.05)
    assert summary.p_value[1, 1] == pytest.approx(0.1)
    assert np.allclose(summary.p_adjusted, 0.1)


def test_best_of_many_independent_layers_is_not_significant_after_adjustment() -> None:
    measure, raw, adjusted = get_measure("cka"), [], []
    for seed in range(40):
        xs, ys = layers(seed, 4, n=40, d=3), layers(1000 + seed, 4, n=40, d=3)
        values = compute_grid(measure, xs, ys)
        null = permutation_null(measure, xs, ys, values, draw_permutations(40, 59, seed))
        best = np.unravel_index(values.argmax(), values.shape)
        raw.append(null.p_value[best] <= 0.05)
        adjusted.append(null.p_adjusted[best] <= 0.05)
    # Choosing the best of 16 makes a per-cell p lie; the adjusted one holds its level.
    assert np.mean(raw) > 0.25
    assert np.mean(adjusted) <= 0.15


def test_few_permutations_take_the_quantile_of_a_normal_distribution() -> None:
    null = np.random.default_rng(0).normal(0.3, 0.1, size=(20, 1, 1))
    summary = summarise(get_measure("cka"), np.array([[0.5]]), null)
    expected = null.mean() + 1.6448536 * null.std(ddof=1)
    assert summary.method == "20 shuffles, normal tail"
    assert summary.q95[0, 0] == pytest.approx(expected)
    assert summarise(get_measure("cka"), np.array([[0.5]]), null[:1]).calibrated[0, 0] != 0.0


@pytest.mark.parametrize("name", ["cka", "procrustes"])
def test_a_tail_fitted_to_ten_draws_keeps_its_level_and_is_not_believed_far_out(name: str) -> None:
    measure = get_measure(name)
    draws = np.random.default_rng(3).normal(0.4, 0.1, size=(11, 40, 50))
    found = summarise(measure, draws[0], draws[1:])
    # Of 2,000 true nulls.
    assert 0.035 <= np.mean(found.p_value <= 0.05) <= 0.065
    sign = 1 if measure.direction == "similarity" else -1
    far = summarise(measure, np.full((40, 50), 0.4 + 5 * sign), draws[1:])
    assert (far.p_value == 0.001).all()
    # Where all draws are one number there is no tail to fit.
    equal = np.full((10, 1, 1), 0.4)
    assert summarise(measure, equal[0], equal).p_value[0, 0] == 1.0
    assert summarise(measure, equal[0] + 0.1 * sign, equal).p_value[0, 0] == pytest.approx(1 / 11)


def test_cells_outside_the_mask_are_not_computed_and_do_not_count() -> None:
    xs = layers(0, 3)
    mask = np.eye(3, dtype=bool)
    for name in ("cka", "procrustes", "mutual_knn"):
        measure = get_measure(name)
        values = compute_grid(measure, xs, xs, mask)
        assert np.isnan(values[~mask]).all()
        assert np.isfinite(values[mask]).all()
        null = permutation_null(measure, xs, xs, values, draw_permutations(60, 19, 0), mask)
        assert np.isnan(null.p_adjusted[~mask]).all()
        assert np.allclose(null.p_adjusted[mask], 1 / 20)


def test_calibration_is_missing_where_the_null_is_at_the_ceiling() -> None:
    summary = summarise(get_measure("cca"), np.ones((1, 1)), np.ones((50, 1, 1)))
    assert np.isnan(summary.calibrated[0, 0])
    assert summary.p_value[0, 0] == 1.0


def test_same_seed_same_permutations() -> None:
    first, again = (draw_permutations(50, 4, seed=7) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, draw_permutations(50, 4, seed=8))
    assert all(np.array_equal(np.sort(row), np.arange(50)) for row in first)


def test_no_permutation_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one permutation"):
        null_values(get_measure("cka"), layers(0, 1), layers(1, 1), np.empty((0, 60)))


def test_kendall_makes_rsa_expensive_and_takes_its_pair_matrix_away() -> None:
    rsa = get_measure("rsa")
    kendall = rsa.with_params(comparison="kendall_b")
    assert (rsa.is_expensive, kendall.is_expensive) == (False, True)
    assert rsa.matrix is not None
    assert kendall.matrix is None


def test_the_fast_null_of_unit_correlation_is_the_plain_one() -> None:
    rng = np.random.default_rng(5)
    xs = [as_features(rng.normal(size=(30, 6))) for _ in range(3)]
    constant = rng.normal(size=(30, 6))
    constant[:, 2] = 1.0
    ys = [as_features(constant), as_features(rng.normal(size=(30, 6)))]
    measure = get_measure("unit_correlation")
    orders = draw_permutations(30, 7, seed=1)
    mask = np.array([[True, False], [True, True], [False, True]])
    plain = [[[measure(x, y.permuted(order)) for y in ys] for x in xs] for order in orders]
    fast = null_values(measure, xs, ys, orders, mask)
    np.testing.assert_allclose(fast, np.where(mask, plain, np.nan), atol=1e-12)
