import numpy as np
import pytest
import torch

from repsim.core import InputError, UsageError
from repsim.measures import Features, as_features

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)) + np.array([0, 100, -3, 0, 5, 1])


@pytest.mark.parametrize(
    ("x", "complaint"),
    [
        (np.zeros(4), r"expected \[rows, units\], got shape \[4\]"),
        (np.zeros((2, 3, 4)), "pool tokens into one row per sentence"),
        (np.zeros((0, 3)), r"shape \[0, 3\] is empty"),
        (np.zeros((3, 0)), r"shape \[3, 0\] is empty"),
        (np.ones((3, 2)) * 1j, "complex"),
        (torch.ones(3, 2, dtype=torch.complex64), "complex"),
        (np.array([["a", "b"]]), "not numeric"),
        (np.array([[1.0, np.inf], [np.nan, 0.0]]), "2 of 4 values .* first at row 0, column 1"),
    ],
)
def test_malformed_arrays_are_refused_with_what_is_wrong(x: object, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Features(x)


def test_half_precision_factors_are_refused() -> None:
    with pytest.raises(UsageError, match="dtype torch.float16 is not possible"):
        Features(X, dtype=torch.float16)


def read_only() -> np.ndarray:
    x = X.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    "x",
    [
        X.tolist(),
        read_only(),
        X.astype(">f8"),
        np.asfortranarray(X),
        X[::-1][::-1],
        torch.from_numpy(X).requires_grad_(),
    ],
    ids=["list", "read-only", "big-endian", "fortran", "strided", "grad"],
)
def test_every_kind_of_array_gives_the_same_features(x: object) -> None:
    np.testing.assert_array_equal(Features(x).centered, Features(X).centered)


def test_integers_and_bfloat16_are_taken() -> None:
    assert Features([[1, 2], [3, 4]]).centered.tolist() == [[-1, -1], [1, 1]]
    assert Features(torch.tensor([[1.0], [3.0]], dtype=torch.bfloat16)).mean.item() == 2


def test_as_features_is_idempotent() -> None:
    features = as_features(X)
    assert as_features(features) is features


def test_float32_centering_keeps_the_digits_that_a_massive_mean_would_eat() -> None:
    x = RNG.normal(size=(2000, 3)) * 1e-2 + np.array([60.0, -35.0, 1000.0])
    stored = x.astype(np.float32)
    expected = stored.astype(np.float64) - stored.astype(np.float64).mean(axis=0)
    centered = Features(stored, dtype=torch.float32).centered
    np.testing.assert_allclose(centered.numpy(), expected, atol=1e-9, rtol=1e-6)


def test_a_constant_column_is_exactly_zero_though_its_mean_is_rounded() -> None:
    x = np.full((7, 2), 0.1)
    x[:, 0] = np.arange(7)
    features = Features(x)
    assert bool((features.centered[:, 1] == 0).all())
    assert features.rank == 1
    assert not features.is_constant
    assert Features(np.full((7, 2), 0.1)).is_constant


def test_factors_are_what_they_say() -> None:
    f, centered = Features(X), X - X.mean(axis=0)
    np.testing.assert_allclose(f.gram, centered @ centered.T, atol=1e-9)
    np.testing.assert_allclose(f.norm, np.linalg.norm(centered))
    u, s, vh = f.svd
    np.testing.assert_allclose((u * s) @ vh, centered, atol=1e-9)
    np.testing.assert_allclose(f.unit_columns.mT @ f.unit_columns, np.corrcoef(X.T), atol=1e-12)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "correlation"])
def test_distances_are_those_of_scipy(metric: str) -> None:
    from scipy.spatial.distance import pdist

    np.testing.assert_allclose(Features(X).rdm(metric), pdist(X, metric), atol=1e-9)


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown metric 'manhattan' .* euclidean, sqeuclidean"):
        Features(X).rdm("manhattan")  # type: ignore[arg-type]


def test_equal_rows_have_distance_zero_far_from_the_origin() -> None:
    x = np.vstack([X, X[:3]]) * 37 + 1e3
    assert Features(x).distances("euclidean")[:3, 40:].diagonal().tolist() == [0, 0, 0]


def test_wide_rows_are_rotated_into_as_many_coordinates_as_there_are_rows() -> None:
    wide = Features(RNG.normal(size=(8, 30)))
    assert wide.compact.shape == (8, 8)
    np.testing.assert_allclose(wide.compact @ wide.compact.mT, wide.gram, atol=1e-10)


def test_rank_of_float32_data_ignores_what_float32_cannot_resolve() -> None:
    x = RNG.normal(size=(50, 4))
    x = np.hstack([x, x[:, :1] + x[:, 1:2]])
    assert Features(x.astype(np.float32)).rank == 4
    assert Features(x).rank == 4


def factors(f: Features) -> list[torch.Tensor]:
    """Every factor that does not depend on a choice of sign or basis."""
    return [
        f.x, f.mean, f.centered, torch.tensor(f.norm), f.unit_rows, f.unit_columns, f.gram,
        f.gram_diagonal, f.compact @ f.compact.mT, f.svd[0] @ f.svd[0].mT, f.svd[1],
        f.svd_uncentered[0] @ f.svd_uncentered[0].mT, f.distances("euclidean"), f.rdm("cosine"),
        f.rdm_ranks("correlation"), f.neighbours(5, "cosine").near,
        f.neighbours(5, "euclidean").near,
        f.remember_matrix("sums", lambda g: g.x.sum(1)[:, None] + g.x[:, 0]),
    ]  # fmt: skip


@pytest.mark.parametrize("warm", [True, False])
def test_shuffled_features_equal_features_of_shuffled_rows(warm: bool) -> None:
    f, order = Features(X), np.random.default_rng(1).permutation(40)
    if warm:
        factors(f)
    for mine, fresh in zip(factors(f.permuted(order)), factors(Features(X[order])), strict=True):
        torch.testing.assert_close(mine, fresh, atol=1e-9, rtol=1e-9)


def test_shuffling_computes_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    f = Features(X)
    f.gram, f.svd, f.rdm_ranks("euclidean"), f.neighbours(4)
    monkeypatch.setattr("repsim.measures.features.symmetric_product", None)
    monkeypatch.setattr("torch.linalg.svd", None)
    shuffled = f.permuted(np.arange(40)[::-1].copy())
    shuffled.gram, shuffled.svd, shuffled.rdm_ranks("euclidean"), shuffled.neighbours(4)


def test_shuffles_compose() -> None:
    a, b = (np.random.default_rng(i).permutation(40) for i in (1, 2))
    torch.testing.assert_close(
        Features(X).permuted(a).permuted(b).gram, Features(X[a][b]).gram, atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("order", [np.zeros(40, int), np.arange(39)])
def test_what_is_no_permutation_is_refused(order: np.ndarray) -> None:
    with pytest.raises(InputError, match="not a permutation of 40 rows"):
        Features(X).permuted(order)


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("rows", [[3, 1, 30], np.arange(40) % 3 == 0, [5, 5, 2, 9, 9]])
def test_a_subset_equals_features_of_its_rows(rows: list[int] | np.ndarray, warm: bool) -> None:
    whole = Features(X)
    if warm:
        whole.gram, whole.distances("euclidean"), whole.distances("cosine")
    part, fresh = whole.take(rows), Features(X[rows])
    for metric in ("euclidean", "cosine"):
        torch.testing.assert_close(part.distances(metric), fresh.distances(metric))
    torch.testing.assert_close(part.gram, fresh.gram, atol=1e-8, rtol=1e-9)
    torch.testing.assert_close(part.centered, fresh.centered)


@pytest.mark.parametrize("rows", [[], [40], [-1], np.zeros(40, bool)])
def test_rows_that_are_not_there_are_refused(rows: list[int] | np.ndarray) -> None:
    with pytest.raises(InputError, match="indices from 0 to 39"):
        Features(X).take(rows)


def test_residuals_are_uncorrelated_with_the_covariates_and_keep_the_means() -> None:
    covariates = np.column_stack([RNG.normal(size=40), X[:, 0] * 2 + 1])
    rest = Features(X).residualised(covariates)
    centred = covariates - covariates.mean(axis=0)
    np.testing.assert_allclose(centred.T @ rest.centered.numpy(), 0, atol=1e-9)
    np.testing.assert_allclose(rest.mean, X.mean(axis=0))
    assert bool((rest.centered[:, 0] == 0).all()), "an explained column must not be left as noise"


def test_constant_covariates_change_nothing() -> None:
    torch.testing.assert_close(Features(X).residualised(np.ones(40)).x, Features(X).x)


def test_too_many_or_too_few_covariates_are_refused() -> None:
    with pytest.raises(InputError, match="38 covariates leave nothing of 40 rows"):
        Features(X).residualised(RNG.normal(size=(40, 38)))
    with pytest.raises(InputError, match="different numbers of rows"):
        Features(X).residualised(np.ones(39))


def test_neighbours_exclude_the_row_itself_and_share_the_places_of_a_tie() -> None:
    x = np.array([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [1.0, 1.0]])
    found = Features(x).neighbours(2, "cosine")
    # The last row is as far from the first three as from the next two.
    assert [set(row[row != i].tolist()) for i, row in enumerate(found.near)] == [
        {1, 2}, {0, 2}, {0, 1}, {4, 5}, {3, 5}, {0, 1, 2, 3, 4},
    ]  # fmt: skip
    assert found.weight is not None
    assert found.rank is not None
    assert found.weight.sum(dim=1).tolist() == [2.0] * 6
    assert found.weight[5].tolist() == pytest.approx([0.4] * 5)
    assert found.rank[5].tolist() == [3.0] * 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lists_of_shuffled_rows_are_the_shuffled_lists_also_at_ties(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, size=(90, 3)) + 0.5
    order = rng.permutation(90)
    mine = Features(x[order], dtype=dtype).neighbours(4)
    theirs = Features(x, dtype=dtype).neighbours(4)
    for row, was in enumerate(order):
        weights = [np.zeros(90), np.zeros(90)]
        weights[0][order[mine.near[row]]] = mine.weights()[row]
        weights[1][theirs.near[was]] = theirs.weights()[was]
        own = weights[0][was], weights[1][was]
        assert own == (0, 0)
        np.testing.assert_allclose(*weights, atol=1e-12)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "correlation"])
def test_neighbours_are_the_rows_at_least_distance(metric: str) -> None:
    f = Features(X)
    distances = f.distances(metric).clone().fill_diagonal_(torch.inf)
    expected = torch.argsort(distances, dim=1)[:, :7]
    found = f.neighbours(7, metric)
    assert torch.equal(found.near, expected)
    assert found.weight is None


@pytest.mark.parametrize("k", [0, 39])
def test_an_impossible_number_of_neighbours_is_refused(k: int) -> None:
    with pytest.raises(UsageError, match=f"k={k} neighbours of 40 rows .* 1 to 38"):
        Features(X).neighbours(k)


def test_what_is_computed_temporarily_is_dropped() -> None:
    f = Features(X)
    kept = f.centered
    with f.temporarily():
        gram = f.gram
    assert f.centered is kept
    assert f.gram is not gram
    f.forget()
    assert f.centered is not kept
