import numpy as np
import pytest

from repsim.measures import Features, compute_grid, get_measure, measure
from repsim.measures.null import draw_permutations, null_values

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 5))
Y = X @ RNG.normal(size=(5, 5)) + 0.5 * RNG.normal(size=(30, 5))


def cosines(x: np.ndarray) -> np.ndarray:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit @ unit.T


def nearest(x: np.ndarray, k: int) -> list[list[int]]:
    table = cosines(x)
    return [
        sorted((j for j in range(len(x)) if j != i), key=lambda j, i=i: (-table[i, j], j))[:k]
        for i in range(len(x))
    ]


@pytest.mark.parametrize("k", [1, 4, 28])
def test_shared_neighbours_follow_the_definition_row_by_row(k: int) -> None:
    mutual, jaccard = [], []
    for a, b in zip(nearest(X, k), nearest(Y, k), strict=True):
        shared = len(set(a) & set(b))
        mutual.append(shared / k)
        jaccard.append(shared / len(set(a) | set(b)))
    shared, union = (get_measure(name).with_params(k=k) for name in ("mutual_knn", "jaccard_knn"))
    assert shared(X, Y) == pytest.approx(np.mean(mutual), abs=1e-12)
    assert union(X, Y) == pytest.approx(np.mean(jaccard), abs=1e-12)


def test_k_is_cut_to_two_less_than_the_rows() -> None:
    mutual = get_measure("mutual_knn")
    assert mutual(X, Y, k=500) == mutual(X, Y, k=28)


def test_null_of_mutual_neighbours_is_k_over_n_minus_one() -> None:
    x, y = RNG.normal(size=(2, 400, 20))
    assert measure(x, y, "mutual_knn") == pytest.approx(10 / 399, abs=0.006)


@pytest.mark.parametrize("name", ["mutual_knn", "jaccard_knn"])
def test_blocks_of_rows_do_not_change_the_grid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compute_grid(get_measure(name), [Features(X)], [Features(Y)])
    monkeypatch.setattr("repsim.measures.neighbours.BLOCK", 7)
    monkeypatch.setattr("repsim.measures.nearest.TEMPORARY_NUMBERS", 1)
    monkeypatch.setattr("repsim.measures.nearest.BLOCK", 7)
    np.testing.assert_allclose(
        compute_grid(get_measure(name), [Features(X)], [Features(Y)]), whole, atol=1e-12
    )


def test_rank_similarity_follows_the_definition() -> None:
    values = []
    for a, b in zip(nearest(X, 10), nearest(Y, 10), strict=True):
        common = set(a) & set(b)
        total = 0.0
        for v in common:
            first, second = a.index(v) + 1, b.index(v) + 1
            total += 2 / ((1 + abs(first - second)) * (first + second))
        values.append(total / sum(1 / i for i in range(1, len(common) + 1)) if common else 0.0)
    assert measure(X, Y, "rank_similarity") == pytest.approx(np.mean(values), abs=1e-12)


@pytest.mark.parametrize("kind", ["similarity", "distance"])
def test_second_order_cosine_follows_the_definition(kind: str) -> None:
    tables = [cosines(side) if kind == "similarity" else 1 - cosines(side) for side in (X, Y)]
    values = []
    for i, (a, b) in enumerate(zip(nearest(X, 10), nearest(Y, 10), strict=True)):
        union = sorted(set(a) | set(b))
        first, second = tables[0][i, union], tables[1][i, union]
        values.append(first @ second / np.linalg.norm(first) / np.linalg.norm(second))
    value = measure(X, Y, "second_order_cosine", values=kind)
    assert value == pytest.approx(np.mean(values), abs=1e-12)


def test_cycles_are_counted_in_the_stated_direction() -> None:
    a, b = nearest(X, 2), nearest(Y, 2)
    expected = np.mean([any(i in a[j] for j in b[i]) for i in range(30)])
    assert measure(X, Y, "cycle_knn", k=2) == pytest.approx(expected)


def test_cknna_without_common_neighbours_is_undefined_or_zero_not_an_error() -> None:
    assert measure(X, X, "cknna") == pytest.approx(1.0)
    assert abs(measure(X, RNG.normal(size=(30, 5)), "cknna", k=1)) < 1


@pytest.mark.parametrize("name", ["mutual_knn", "jaccard_knn"])
def test_shuffled_lists_with_ties_are_the_lists_of_shuffled_rows(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(40, 4))[rng.integers(0, 25, size=40)] for _ in range(2))
    xs, ys = [Features(x), Features(rng.normal(size=(40, 4)))], [Features(y)]
    assert xs[0].neighbours(5).weight is not None
    chosen, orders = get_measure(name).with_params(k=5), draw_permutations(40, 6, seed=0)
    plain = np.stack([compute_grid(chosen, xs, [y.permuted(o) for y in ys]) for o in orders])
    monkeypatch.setattr("repsim.measures.neighbour_null.HELD", 40 * 17)
    monkeypatch.setattr("repsim.measures.neighbour_null.LOOKED_UP", 300)
    np.testing.assert_allclose(null_values(chosen, xs, ys, orders), plain, atol=1e-12)
