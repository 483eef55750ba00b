import itertools

import numpy as np
import pytest
import scipy.spatial
import scipy.stats
import torch

from repsim import compare_arrays
from repsim.measures import Features, Statistics, assess, blocks, compute_grid, get_measure
from repsim.measures.beside import beside
from repsim.measures.cautions import document_cautions
from repsim.measures.documents import as_unit, centred_apart, shuffled_documents, staying
from repsim.measures.null import (
    draw_permutations,
    draw_signs,
    null_values,
    permutation_null,
    summarise,
)
from repsim.measures.serial import runs_on

SIZES = [3, 1, 2, 5, 1, 1, 2, 4, 1, 3]
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(len(SIZES)), SIZES))
N = len(LABELS)


def sides(count: int = 2, labels: np.ndarray | None = LABELS) -> list[Features]:
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(N, 3))
    arrays = [shared @ rng.normal(size=(3, 5)) + rng.normal(size=(N, 5)) + 4 for _ in range(count)]
    return [Features(array, documents=labels) for array in arrays]


def projected(kernel: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Least squares on the row effects, over pairs of different documents."""
    pairs = [
        p for p in itertools.combinations(range(len(labels)), 2) if labels[p[0]] != labels[p[1]]
    ]
    design = np.zeros((len(pairs), len(labels)))
    for row, (i, j) in enumerate(pairs):
        design[row, [i, j]] = 1
    values = np.array([kernel[p] for p in pairs])
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def test_cka_by_documents_is_the_cosine_of_kernels_without_row_effects() -> None:
    x, y = sides()
    a, b = (projected((f.x @ f.x.mT).numpy(), LABELS) for f in (x, y))
    expected = a @ b / np.sqrt((a @ a) * (b @ b))
    assert get_measure("cka")(x, y) == pytest.approx(expected, abs=1e-10)
    kernel = centred_apart(x.x @ x.x.mT, torch.as_tensor(LABELS))
    assert float((kernel**2).sum()) == pytest.approx(2 * a @ a)
    assert float(kernel.sum(dim=0).abs().max()) < 1e-9


def test_documents_of_one_row_give_debiased_cka() -> None:
    plain, single = sides(labels=None), sides(labels=np.arange(N))
    assert get_measure("cka")(*single) == pytest.approx(get_measure("cka")(*plain), abs=1e-12)


def test_float32_and_subsets_keep_the_documents() -> None:
    x, y = sides()
    single = [Features(f.x, dtype=torch.float32, documents=LABELS) for f in (x, y)]
    assert get_measure("cka")(*single) == pytest.approx(get_measure("cka")(x, y), abs=1e-6)
    kept = np.flatnonzero(LABELS != 3)
    fresh = [Features(f.x[kept], documents=LABELS[kept]) for f in (x, y)]
    subset = get_measure("cka")(x.take(kept), y.take(kept))
    assert subset == pytest.approx(get_measure("cka")(*fresh), abs=1e-12)


def test_likeness_within_documents_is_not_taken_for_likeness_of_representations() -> None:
    """Documents of 6, intraclass correlation 0.9: 0.05 too much by rows."""
    rng, found = np.random.default_rng(3), []
    views = rng.normal(size=(2, 4, 10))
    labels = np.repeat(np.arange(30), 6)

    def latent() -> np.ndarray:
        between, within = rng.normal(size=(30, 4))[labels], rng.normal(size=(180, 4))
        return np.sqrt(0.9) * between + np.sqrt(0.1) * within

    for _ in range(60):
        shared = latent()
        x, y = ((shared + latent()) @ view for view in views)
        by_rows, by_documents = (
            get_measure("cka")(Features(x, documents=d), Features(y, documents=d))
            for d in (None, labels)
        )
        found.append([by_rows, by_documents])
    covariances = [2 * view.T @ view for view in views]
    cross = views[0].T @ views[1]
    truth = (cross**2).sum() / np.sqrt(np.prod([(c**2).sum() for c in covariances]))
    bias = np.mean(found, axis=0) - truth
    assert bias[0] > 0.03
    assert abs(bias[1]) < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "name", ["rsa", "rsa_euclidean_pearson", "rsa_sqeuclidean_cosine", "rsa_euclidean_tau_a",
             "rsa_euclidean_rho_a", "cka_rbf", "distance_correlation_debiased"]
)  # fmt: skip
def test_pairs_of_rows_of_one_document_do_not_count(name: str, dtype: torch.dtype) -> None:
    """By brute force over pairs; by tiles, alone, by matrices and after a change within."""
    measure = get_measure(name)
    x, y = (Features(f.x, dtype=dtype, documents=LABELS) for f in sides())
    i, j = np.triu_indices(N, 1)
    apart = LABELS[i] != LABELS[j]
    a, b = (scipy.spatial.distance.pdist(f.x.numpy()) for f in (x, y))
    if name == "cka_rbf":
        a, b = (np.exp(-(d**2) / (2 * np.median(d) ** 2)) for d in (a, b))
    if measure.name in ("cka_rbf", "distance_correlation_debiased"):
        a, b = (projected(scipy.spatial.distance.squareform(d), LABELS) for d in (a, b))
    else:
        a, b = a[apart], b[apart]
    expected = {
        "rsa": lambda: scipy.stats.spearmanr(a, b).statistic,
        "rsa_euclidean_rho_a": lambda: scipy.stats.spearmanr(a, b).statistic,
        "rsa_euclidean_tau_a": lambda: scipy.stats.kendalltau(a, b).statistic,
        "rsa_euclidean_pearson": lambda: np.corrcoef(a, b)[0, 1],
        "rsa_sqeuclidean_cosine": lambda: a**2 @ b**2 / np.sqrt((a**4).sum() * (b**4).sum()),
    }.get(name, lambda: a @ b / np.sqrt((a @ a) * (b @ b)))()
    assert measure(x, y) == pytest.approx(expected, abs=2e-5)
    assert compute_grid(measure, [x], [y])[0, 0] == pytest.approx(expected, abs=2e-5)
    assert measure.leaves_out_documents
    if measure.matrix is not None:
        order = np.arange(N)[None]
        assert null_values(measure, [x], [y], order)[0, 0, 0] == pytest.approx(expected, abs=2e-5)


def test_shuffles_take_whole_documents_to_the_place_of_others() -> None:
    generator = np.random.default_rng(0)
    equal = np.repeat(np.arange(12), 4)
    for _ in range(5):
        order = shuffled_documents(equal, generator)
        assert sorted(order) == list(range(48))
        assert all(len(set(equal[order][equal == d])) == 1 for d in range(12))
    unequal = np.repeat(np.arange(40), [*range(1, 21)] * 2)
    order = shuffled_documents(unequal, generator)
    assert sorted(order) == list(range(len(unequal)))
    together = sum(
        np.bincount(unequal[order][unequal == d]).max() / (unequal == d).sum() for d in range(40)
    )
    assert together / 40 > 0.7


def test_the_fast_null_by_documents_is_the_plain_one() -> None:
    labels = np.repeat(np.arange(N // 2 + 1), 2)[:N]
    x, y = sides(labels=labels)
    orders = draw_permutations(N - N % 2, 4, 0, labels[: N - N % 2])
    left, right = (
        Features(f.x[: orders.shape[1]], documents=labels[: orders.shape[1]]) for f in (x, y)
    )
    measure = get_measure("cka")
    fast = null_values(measure, [left], [right], orders)[:, 0, 0]
    plain = [measure(left, right.permuted(order)) for order in orders]
    np.testing.assert_allclose(fast, plain, atol=1e-6)


def test_a_true_null_of_documents_is_kept_where_shuffled_sentences_reject_it() -> None:
    """Intraclass correlation 0.5 in documents of 6, at the level of 5 %."""
    labels, measure = np.repeat(np.arange(20), 6), get_measure("cka")
    rejected = {"sentence": 0, "document": 0}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        arrays = [rng.normal(size=(20, 5))[labels] + rng.normal(size=(120, 5)) for _ in range(2)]
        for unit, known in (("sentence", None), ("document", labels)):
            x, y = (Features(array, documents=known) for array in arrays)
            orders = draw_permutations(120, 39, seed, known)
            null = permutation_null(measure, [x], [y], compute_grid(measure, [x], [y]), orders)
            rejected[unit] += int(null.p_value[0, 0] <= 0.05)
    assert rejected["sentence"] > 20
    assert rejected["document"] <= 8


def test_what_cannot_be_the_unit_says_why() -> None:
    assert as_unit(()) == (None, "")
    assert as_unit(list("abcdef")) == (None, "")
    assert "2 documents are too few" in as_unit(["a", "a", "b"])[1]
    assert "one document holds 9 of 14 rows" in as_unit(["a"] * 9 + list("bcdef"))[1]
    labels, reason = as_unit(list("aabbccddee"))
    assert labels is not None
    assert (labels.tolist(), reason) == ([0, 0, 1, 1, 2, 2, 3, 3, 4, 4], "")


def test_flipped_signs_are_sums_over_pairs_of_documents() -> None:
    labels = np.repeat(np.arange(len(SIZES)), SIZES)
    rng = np.random.default_rng(5)
    x, y = (Features(rng.normal(size=(N, 4)), documents=labels) for _ in range(2))
    a, b = (centred_apart(f.x @ f.x.mT, torch.as_tensor(labels)).numpy() for f in (x, y))
    signs = draw_signs(len(SIZES), 3, seed=0)
    apart = labels[:, None] != labels
    parts = a * b * apart
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    expected = [signs[k][labels] @ parts @ signs[k][labels] / scale for k in range(3)]
    measure = get_measure("cka")
    assert measure.by_document is not None
    found, without = measure.by_document([x], [y], signs, np.ones((1, 1), dtype=bool))
    # What centering takes from the spread, of as many equal documents as weigh as much.
    equal = N**2 / np.square(SIZES).sum()
    expected = np.array(expected) * np.sqrt((equal - 1) / (equal - 3))
    np.testing.assert_allclose(found[:, 0, 0], expected, atol=1e-6)
    assert measure.left_out is not None
    np.testing.assert_allclose(without, measure.left_out([x], [y]), atol=1e-6)


@pytest.mark.parametrize("name", ["cka", "unit_correlation"])
@pytest.mark.parametrize("heavy", [False, True])
def test_flipped_signs_keep_the_level_whatever_the_sizes_of_documents(
    name: str, heavy: bool
) -> None:
    sizes = [1] * 20 + [2] * 8 + [3] * 4 + [5, 6, 8, 12, 20]
    labels, measure = np.repeat(np.arange(len(sizes)), sizes), get_measure(name)
    p_values = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x, y = (
            Features(
                rng.normal(size=(len(sizes), 5))[labels] + rng.normal(size=(len(labels), 5)),
                documents=labels,
            )
            for _ in range(2)
        )
        if heavy:  # two rows that are long on both sides
            long = np.where(np.arange(len(labels)) < 2, 20.0, 1.0)[:, None]
            x, y = (Features(f.x.numpy() * long, documents=labels) for f in (x, y))
        signs = draw_signs(len(sizes), 59, seed)
        values = compute_grid(measure, [x], [y])
        everywhere = np.ones((1, 1), dtype=bool)
        null, _ = measure.by_document([x], [y], signs, everywhere)  # type: ignore[misc]
        p_values.append(summarise(measure, values, null).p_value[0, 0])
    # Shuffles of documents reject in 9 % of cases, and in 47 % with two long rows.
    assert np.mean(np.array(p_values) <= 0.05) <= 0.13


def test_blocks_that_run_on_are_noticed_and_shifted_as_one_sequence() -> None:
    rng = np.random.default_rng(0)
    steps, labels = rng.normal(size=(300, 4)), np.array(blocks(300, 36))
    for row in range(1, 300):
        steps[row] = 0.8 * steps[row - 1] + 0.6 * steps[row]
    apart = rng.normal(size=(9, 4))[labels] + rng.normal(size=(300, 4))
    serial, own = (Features(rows, documents=labels) for rows in (steps, apart))
    assert runs_on(serial, serial)
    assert not runs_on(own, own)
    assert not runs_on(serial, own)
    assert not runs_on(Features(steps), Features(steps))
    orders = draw_permutations(300, 20, 0, labels, run_on=True)
    shift = orders[:, 0]
    assert ((orders - np.arange(300)) % 300 == shift[:, None]).all()
    assert ((shift >= 36) & (shift <= 264)).all()


def test_documents_without_their_like_stay_and_the_cell_says_so() -> None:
    sizes = [20, 9, 8, *[3] * 5, *[1] * 10]
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = shuffled_documents(labels, np.random.default_rng(0))
    assert sorted(order[:20]) == list(range(20))
    assert staying(labels) == (1, 20 / 62)
    chosen = get_measure("procrustes")
    assert "1 documents (32 % of the rows)" in document_cautions(chosen, labels)[0]
    assert not document_cautions(get_measure("cka"), labels)
    assert "lifts the value" in document_cautions(get_measure("cka_biased"), labels)[-1]
    assert "lifts the value" not in document_cautions(get_measure("rsa"), labels)[-1]
    long = np.repeat(np.arange(8), [30, 20, 10, 5, 1, 1, 1, 1])
    assert "no null" in document_cautions(chosen, long)[0]
    x, y = (Features(np.random.default_rng(i).normal(size=(69, 4)), documents=long) for i in (0, 1))
    found, _ = beside(chosen, [x], [y], compute_grid(chosen, [x], [y]), Statistics(),
                      tested=np.ones((1, 1), dtype=bool))  # fmt: skip
    assert "p_value" not in found


def test_a_value_without_interval_or_null_says_why() -> None:
    rng, documents = np.random.default_rng(15), np.repeat(np.arange(5), [9, 3, 2, 2, 3])
    x = rng.normal(size=(5, 3))[documents] + 0.1 * rng.normal(size=(19, 3))
    y = x + 0.1 * rng.normal(size=(19, 3))
    found = assess(x, y, documents=documents)
    assert np.isnan(found.ci_low)
    assert "no interval: without one of 5 documents of unlike length" in found.note
    assert "rather too wide" in found.note
    found = assess(x, y, "procrustes", documents=documents)
    assert "stay in place in the shuffles" in found.note
    assert "no interval: a share of units" in assess(x, y, "identity_match").note
    arrays = {"a": [x], "b": [y]}
    (row,) = compare_arrays(arrays, ["cka"], documents=list(map(str, documents))).rows()
    assert row["ci_low"] is None
    assert "no interval: without one of 5 documents" in row["note"]
    assert row["null_method"] == "100 draws of signs of documents"


def test_closed_jackknife_of_unit_correlation_is_the_value_on_the_rest() -> None:
    x, y = sides()
    measure = get_measure("unit_correlation")
    for left, right, labels in ((x, y, LABELS), (Features(x.x), Features(y.x), np.arange(N))):
        assert measure.left_out is not None
        found = measure.left_out([left], [right], None)[:, 0, 0]
        for unit in range(labels.max() + 1):
            kept = np.flatnonzero(labels != unit)
            expected = measure(x.x[kept], y.x[kept])
            assert found[unit] == pytest.approx(expected, abs=1e-10)
