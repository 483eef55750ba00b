"""The null of debiased CKA in closed form, against shuffles."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from repsim.measures import Features, Statistics, as_features, compute_grid, get_measure
from repsim.measures.beside import beside
from repsim.measures.cka_null import cka_moments
from repsim.measures.null import draw_permutations, from_moments, null_values

CKA = get_measure("cka")
EVERYWHERE = np.ones((1, 1), dtype=bool)


def skewed(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).exponential(size=(n, d)) * np.arange(1, d + 1) ** -0.7


@pytest.mark.parametrize("widths", [(2, 3), (9, 3)])
def test_moments_are_those_of_all_permutations(widths: tuple[int, int]) -> None:
    x, y = (as_features(skewed(7, d, seed)) for seed, d in enumerate(widths))
    orders = np.array(list(itertools.permutations(range(7))))
    values = null_values(CKA, [x], [y], orders)[:, 0, 0]
    expected = values.mean(), values.std(), (values**3).mean() / values.std() ** 3
    found = [moment[0, 0] for moment in cka_moments([x], [y])]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["isotropic", "one rogue unit", "heavy tails", "wide"])
def test_the_tail_is_that_of_shuffles(kind: str) -> None:
    rng = np.random.default_rng(1)
    n, d = (60, 90) if kind == "wide" else (80, 8)
    x, y = (rng.standard_t(3, (n, d)) if "heavy" in kind else rng.normal(size=(n, d)) for _ in "ab")
    if "rogue" in kind:
        x[:, 0], y[:, 0] = 20 * x[:, 0], 20 * y[:, 0]
    xs, ys = [as_features(x)], [as_features(y)]
    values = null_values(CKA, xs, ys, draw_permutations(n, 4000, 0))
    moments = tuple(np.broadcast_to(m, (4000, 1, 1)) for m in cka_moments(xs, ys))
    p = from_moments(CKA, values, moments).p_value  # type: ignore[arg-type]
    for level, tolerance in ((0.2, 0.03), (0.05, 0.012), (0.01, 0.006)):
        assert np.mean(p <= level) == pytest.approx(level, abs=tolerance), level
    assert values.std() == pytest.approx(np.sqrt(2 / (n * (n - 3))), rel=0.04)


def test_float32_narrow_wide_and_drawn_rows_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = skewed(400, 20, 3) + 5
    exact = cka_moments(*[[Features(rows, dtype=torch.float64)]] * 2)[2]
    single = cka_moments(*[[Features(rows, dtype=torch.float32)]] * 2)[2]
    np.testing.assert_allclose(single, exact, rtol=1e-4)
    # More columns than rows, by a rotation into more coordinates: the matrix over pairs of rows.
    wide = np.hstack([rows, np.zeros((400, 400))])
    np.testing.assert_allclose(cka_moments(*[[Features(wide)]] * 2)[2], exact, rtol=1e-9)
    monkeypatch.setattr("repsim.measures.cka_null.CUBED", 200)
    drawn = cka_moments(*[[Features(rows)]] * 2)[2]
    np.testing.assert_allclose(drawn, exact, rtol=0.02)
    assert (drawn != exact).all()


def test_false_positives_of_independent_data_in_200_repeats() -> None:
    rejected = []
    for seed in range(200):
        x, y = ([as_features(skewed(100, 10, seed + k))] for k in (0, 1000))
        found, _ = beside(CKA, x, y, compute_grid(CKA, x, y), Statistics(groups=0),
                          tested=EVERYWHERE)  # fmt: skip
        rejected.append(found["p_value"][0, 0] <= 0.05)
    assert found["null_method"][0, 0] == "moments of all shuffles"
    assert 0.02 <= np.mean(rejected) <= 0.08


def test_a_null_that_no_gamma_fits_gets_the_bound_of_its_variance() -> None:
    one = np.ones((1, 1))
    found = from_moments(CKA, 3 * one, (0 * one, one, 20 * one))
    assert found.p_value[0, 0] == pytest.approx(0.1)
    at_quantile = from_moments(CKA, found.q95, (0 * one, one, 20 * one))
    assert at_quantile.p_value[0, 0] == pytest.approx(0.05)
    plain = from_moments(CKA, one, (0 * one, one, 0 * one))
    assert plain.p_value[0, 0] == pytest.approx(stats.norm.sf(1))
    # Two of 60 rows that are long on one side only: shuffles put them anywhere.
    x, y = skewed(60, 8, 0), skewed(60, 8, 1)
    x[:2] *= 20
    y[-2:] *= 20
    xs, ys = [as_features(x)], [as_features(y)]
    values = null_values(CKA, xs, ys, draw_permutations(60, 500, 0))
    moments = tuple(np.broadcast_to(m, (500, 1, 1)) for m in cka_moments(xs, ys))
    assert np.mean(from_moments(CKA, values, moments).p_value <= 0.05) <= 0.06  # type: ignore[arg-type]


def test_adjusted_p_is_holms() -> None:
    p = np.array([[0.01, 0.04], [0.03, np.nan]])
    z, zero = stats.norm.isf(p), np.zeros((2, 2))
    found = from_moments(CKA, z, (zero, zero + 1, zero))
    np.testing.assert_allclose(found.p_adjusted, [[0.03, 0.06], [0.06, np.nan]], rtol=1e-9)


def test_signs_of_random_documents_have_the_spread_of_those_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(250), rng.integers(1, 6, 250))
    x, y = (
        [Features(rng.normal(size=(250, 6))[labels] + rng.normal(size=(len(labels), 6)),
                  documents=labels)]
        for _ in "ab"
    )  # fmt: skip
    values, found = compute_grid(CKA, x, y), []
    for most in (10_000, 400):
        monkeypatch.setattr("repsim.measures.beside.MOST_PAIRED", most)
        columns, interval = beside(CKA, x, y, values, Statistics(permutations=400, ceiling=False),
                                   tested=EVERYWHERE)  # fmt: skip
        assert interval is not None
        found.append([columns[name][0, 0] for name in ("null_q95", "ci_low", "ci_high")])
        assert columns["null_method"][0, 0] == "400 draws of signs of documents"
    np.testing.assert_allclose(found[0][1:], found[1][1:], atol=1e-6)
    assert found[1][0] == pytest.approx(found[0][0], rel=0.25)
    assert found[1][0] != found[0][0]
