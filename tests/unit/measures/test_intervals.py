import dataclasses

import numpy as np
import pytest

from repsim.core import InputError, Measure, UsageError
from repsim.measures import Features, as_features, compute_grid, get_measure, measure
from repsim.measures.cka_jackknife import cka_replicates
from repsim.measures.intervals import deal, interval, left_out_values


def planted(seed: int, n: int, noise: float, *, tails: bool = False) -> tuple[Features, Features]:
    """Two views, 10 units each, of a shared latent of 4 dimensions; the views do not change."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_t(5, size=(n, 4)) if tails else rng.normal(size=(n, 4))
    views = (np.random.default_rng(i).normal(size=(4, 10)) for i in (1, 2))
    x, y = (latent @ view + noise * rng.normal(size=(n, 10)) for view in views)
    return as_features(x), as_features(y)


def cover(
    name: str | Measure,
    n: int,
    noise: float,
    count: int,
    *,
    of: str = "this n",
    tails: bool = False,
) -> tuple[float, float]:
    """Coverage of the mean over replications, or of the population's value; error over scatter."""
    chosen = get_measure(name)
    values, low, high, errors = np.empty((4, count))
    for seed in range(count):
        x, y = planted(seed, n, noise, tails=tails)
        value = compute_grid(chosen, [x], [y])
        found = interval(chosen, [x], [y], value, seed=seed)
        assert found is not None
        values[seed], errors[seed] = value[0, 0], found.standard_error[0, 0]
        low[seed], high[seed] = found.low[0, 0], found.high[0, 0]
    truth = values.mean()
    if of == "population":
        truth = np.mean([chosen(*planted(10_000 + s, 4000, noise, tails=tails)) for s in range(3)])
    covered = float(np.mean((low <= truth) & (truth <= high)))
    return covered, float(errors.mean() / values.std())


@pytest.mark.parametrize(
    ("noise", "n", "tails"), [(0.3, 80, False), (3.0, 80, False), (3.0, 200, True)]
)
def test_intervals_of_cka_cover_the_population_value(noise: float, n: int, tails: bool) -> None:
    population, _ = cover("cka", n, noise, 80, of="population", tails=tails)
    assert 0.90 <= population <= 0.99


@pytest.mark.parametrize("name", ["procrustes", "unit_correlation", "mutual_knn"])
def test_grouped_jackknife_covers_the_value_at_this_n(name: str) -> None:
    at_this_n, ratio = cover(name, 100, 0.7, 40)
    assert at_this_n >= 0.85
    assert 0.8 < ratio < 2.0


def test_measures_that_depend_on_n_do_not_cover_the_population_and_say_so_by_their_bias() -> None:
    x, y = planted(0, 80, 1.5)
    cca = get_measure("cca_squared")
    found = interval(cca, [x], [y], compute_grid(cca, [x], [y]))
    assert found is not None
    population = measure(*planted(1, 4000, 1.5), "cca_squared")
    assert population < found.low[0, 0]
    assert found.bias[0, 0] > found.standard_error[0, 0]


@pytest.mark.parametrize("name", ["procrustes", "bures", "permutation", "rsa"])
@pytest.mark.parametrize("by_document", [False, True])
def test_what_is_held_changes_as_what_is_optimised_anew(name: str, by_document: bool) -> None:
    labels = np.repeat(np.arange(40), np.tile([1, 2, 3, 4], 10)) if by_document else None
    n = 100 if by_document else 60
    x, y = (Features(f.x.numpy(), documents=labels) for f in planted(0, n, 0.5))
    chosen = get_measure(name)
    assert chosen.held is not None
    held = chosen.held([x], [y], None, **chosen.params)[:, 0, 0]
    anew = left_out_values(chosen, [x], [y], np.arange(n) if labels is None else labels)[:, 0, 0]
    assert held.std() == pytest.approx(anew.std(), rel=0.15)
    assert np.corrcoef(held, anew)[0, 1] > 0.9


@pytest.mark.parametrize("name", ["rsa_euclidean_pearson", "rsa_sqeuclidean_cosine"])
def test_correlations_of_distances_are_left_out_exactly(name: str) -> None:
    labels = np.repeat(np.arange(10), np.tile([1, 2, 3, 4, 2], 2))
    x, y = (Features(f.x.numpy(), documents=labels) for f in planted(0, 24, 0.5))
    chosen = get_measure(name)
    assert chosen.held is not None
    held = chosen.held([x], [y], None, **chosen.params)
    np.testing.assert_allclose(held, left_out_values(chosen, [x], [y], labels), atol=1e-12)


def test_svcca_holds_many_components_only() -> None:
    x, y = planted(0, 60, 0.5)
    chosen = get_measure("svcca")
    assert chosen.held is not None
    assert chosen.held([x], [y], None, **chosen.params) is None
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(300, 60))
    x, y = Features(wide), Features(wide + 0.3 * rng.normal(size=(300, 60)))
    found = interval(chosen, [x], [y], compute_grid(chosen, [x], [y]))
    assert found is not None
    assert found.method.endswith("what was optimised held")
    # To first order it is what directions sought anew give.
    anew = left_out_values(chosen.with_params(threshold=1.0), [x], [y], np.arange(300) % 30)
    assert found.standard_error[0, 0] == pytest.approx(np.sqrt(29) * anew.std(), rel=0.35)


def test_a_row_bootstrap_is_biased_where_the_jackknife_is_not() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 32)), rng.normal(size=(200, 32))
    drawn = [rng.integers(0, 200, size=200) for _ in range(30)]
    bootstrap = np.mean([get_measure("cka")(x[rows], y[rows]) for rows in drawn])
    left_out = cka_replicates([as_features(x)], [as_features(y)])
    assert bootstrap > measure(x, y, "cka") + 0.08
    assert abs(left_out.mean() - measure(x, y, "cka")) < 0.001


@pytest.mark.parametrize("block", [1 << 24, 24 * 5 * 7])
def test_closed_form_equals_computing_without_the_row(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repsim.measures.cka_jackknife.BLOCK_NUMBERS", block)
    rng = np.random.default_rng(1)
    xs = [rng.normal(size=(24, 5)) + 10 * k for k in range(3)]
    ys = [x[:, :4] + rng.normal(size=(24, 4)) for x in xs[:2]]
    found = cka_replicates([as_features(x) for x in xs], [as_features(y) for y in ys])
    assert found.shape == (24, 3, 2)
    for row in range(24):
        kept = np.arange(24) != row
        expected = [[measure(x[kept], y[kept], "cka") for y in ys] for x in xs]
        np.testing.assert_allclose(found[row], expected, atol=1e-12)


@pytest.mark.parametrize("sizes", [[3] * 30, [1, 9, 2, 2, 5, 1, 1, 6, 3, 4] * 4])
def test_replicates_without_documents_are_nearly_what_the_rest_gives(sizes: list[int]) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    x, y = planted(0, len(labels), 1.0)
    apart = [Features(f.x, documents=labels) for f in (x, y)]
    found = cka_replicates(apart[:1], apart[1:])[:, 0, 0]
    rest = left_out_values(get_measure("cka"), apart[:1], apart[1:], labels)[:, 0, 0]
    assert np.corrcoef(found, rest)[0, 1] > 0.99
    assert found.std() == pytest.approx(rest.std(), rel=0.1)


def test_generic_jackknife_equals_computing_on_the_rest() -> None:
    x, y = planted(0, 40, 1.0)
    labels = deal(np.arange(40), 8, seed=0)
    for name in ("mutual_knn", "procrustes", "svcca"):
        found = left_out_values(get_measure(name), [x], [y], labels)
        rest = labels != 3
        expected = measure(x.x.numpy()[rest], y.x.numpy()[rest], name)
        assert found[3, 0, 0] == pytest.approx(expected, abs=1e-9)


def test_dependent_sentences_need_documents_as_the_unit() -> None:
    rng = np.random.default_rng(0)
    x, y = planted(0, 60, 0.5)
    copies = [as_features(np.repeat(f.x.numpy(), 5, axis=0) + 0.01 * rng.normal(size=(300, 10)))
              for f in (x, y)]  # fmt: skip
    apart = [Features(f.x, documents=np.arange(300) // 5) for f in copies]
    measure = get_measure("cka")
    value = compute_grid(measure, copies[:1], copies[1:])
    by_sentence = interval(measure, copies[:1], copies[1:], value)
    by_document = interval(
        measure, apart[:1], apart[1:], compute_grid(measure, apart[:1], apart[1:])
    )
    alone = interval(measure, [x], [y], compute_grid(measure, [x], [y]))
    assert by_sentence is not None
    assert by_document is not None
    assert alone is not None
    errors = [f.standard_error[0, 0] for f in (by_sentence, by_document, alone)]
    # Five near-copies of each sentence are one observation, not five.
    assert errors[0] < 0.6 * errors[2]
    assert errors[1] == pytest.approx(errors[2], rel=0.2)


@pytest.mark.parametrize("name", ["cka", "mutual_knn", "procrustes", "unit_correlation"])
def test_ends_stay_in_range_and_around_the_value(name: str) -> None:
    x, _ = planted(0, 40, 1.0)
    near = as_features(x.x + 0.01)
    measure = get_measure(name)
    for other in (x, near, planted(3, 40, 5.0)[1]):
        value = compute_grid(measure, [x], [other])
        found = interval(measure, [x], [other], value)
        assert found is not None
        bottom, top = measure.range
        assert found.low[0, 0] <= value[0, 0] <= found.high[0, 0]
        assert top is None or found.high[0, 0] <= top
        assert bottom is None or found.low[0, 0] >= bottom


def test_identical_sides_have_an_interval_of_no_width() -> None:
    x, _ = planted(0, 50, 1.0)
    for name in ("cka", "unit_correlation"):
        found = interval(get_measure(name), [x], [x], np.ones((1, 1)))
        assert found is not None
        assert found.low[0, 0] == pytest.approx(1.0)
        assert found.high[0, 0] == pytest.approx(1.0)


def test_groups_are_even_and_documents_stay_whole() -> None:
    rows = np.arange(103)
    assert set(np.bincount(deal(rows, 20, seed=1)).tolist()) == {5, 6}
    labels = deal(np.arange(90) // 3, 6, seed=1, unit="document")
    assert np.bincount(labels).tolist() == [15] * 6
    assert all(len(set(labels[i : i + 3])) == 1 for i in range(0, 90, 3))
    assert np.array_equal(deal(rows, 20, seed=1), deal(rows, 20, seed=1))
    assert not np.array_equal(deal(rows, 20, seed=1), deal(rows, 20, seed=2))


def test_what_is_not_possible_is_refused() -> None:
    x, y = planted(0, 12, 1.0)
    value = np.zeros((1, 1))
    with pytest.raises(UsageError, match=r"level=1.5 is not between"):
        interval(get_measure("cka"), [x], [y], value, level=1.5)
    with pytest.raises(InputError, match="over sentences needs at least 20 of them, got 12"):
        interval(get_measure("soft_match"), [x], [y], value)
    with pytest.raises(InputError, match="over documents needs at least 5 of them, got 2"):
        two = [Features(f.x, documents=np.arange(12) // 6) for f in (x, y)]
        interval(get_measure("cka"), two[:1], two[1:], value)
    with pytest.raises(UsageError, match="3 groups are too few"):
        deal(np.arange(12), 3, seed=0)


def test_a_measure_declared_without_interval_gets_none() -> None:
    x, y = planted(0, 40, 1.0)
    assert interval(get_measure("identity_match"), [x], [y], np.zeros((1, 1))) is None


def test_identity_match_is_declared_because_its_jackknife_does_not_cover() -> None:
    declared = dataclasses.replace(get_measure("identity_match"), no_interval="")
    at_this_n, _ = cover(declared, 120, 0.7, 30)
    assert at_this_n < 0.7
