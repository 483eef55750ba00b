"""Intervals over models: exact where they can be, and wider where merges share a parent."""

import itertools
import math

import numpy as np
import pytest

from repsim.stats import (
    auroc_estimate,
    bootstrap,
    estimate,
    interval_of,
    members_of,
    model_weights,
    share,
    spearman_estimate,
    weighted_mean,
    weighted_median,
)

NAMES = "abcdefgh"
PAIRS = list(itertools.combinations(NAMES, 2))


def test_a_weighted_median_is_the_median_of_the_repeated_values():
    generator = np.random.default_rng(0)
    values = generator.normal(size=9).round(1)
    weights = generator.integers(0, 4, size=(200, 9)).astype(float)
    weights = weights[weights.sum(axis=1) > 0]
    expected = [np.median(np.repeat(values, row.astype(int))) for row in weights]
    assert weighted_median(values, weights) == pytest.approx(expected)


def test_a_weighted_median_takes_infinities():
    assert weighted_median(np.array([0.1, math.inf, 0.2]), np.ones((1, 3)))[0] == 0.2
    assert weighted_median(np.array([0.1, math.inf, math.inf]), np.ones((1, 3)))[0] == math.inf


def test_a_merge_counts_as_often_as_the_product_of_its_parents():
    alone = model_weights(members_of([("a",), ("b",), ("a", "b"), ("a", "a"), ("c",)]), draws=500)
    assert alone[:, 2] == pytest.approx(alone[:, 0] * alone[:, 1])
    assert alone[:, 3] == pytest.approx(alone[:, 0])
    assert (alone[:, 0] + alone[:, 1] + alone[:, 4] == 3).all()


def test_draws_without_a_merge_are_not_used():
    members = members_of([("a", "b")])
    assert (model_weights(members, draws=400).sum(axis=1) == 0).any()
    used = bootstrap(lambda rows: {"size": len(rows)}, members, draws=400)["size"]
    assert 0 < len(used) < 400
    assert used.min() >= 1


def test_an_interval_leaves_out_draws_that_do_not_define_the_statistic():
    assert interval_of(np.array([1.0, 1.0, math.nan])) == (1.0, 1.0)
    assert math.isnan(interval_of(np.array([1.0, math.nan, math.nan]))[0])
    assert interval_of(np.array([0.0, math.inf, math.inf])) == (0.0, math.inf)


def test_an_area_is_not_defined_in_draws_of_one_outcome():
    label = np.array([a == "a" for a, _ in PAIRS])
    found = auroc_estimate(label.astype(float), label, PAIRS)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_an_effect_of_models_makes_the_interval_wider_than_drawing_merges_would():
    effect = dict(zip(NAMES, np.linspace(-1, 1, len(NAMES)), strict=True))
    values = np.array([effect[a] + effect[b] for a, b in PAIRS])
    found = estimate(values.tolist(), PAIRS, weighted_mean)
    generator = np.random.default_rng(1)
    naive = [generator.choice(values, len(values)).mean() for _ in range(1000)]
    assert found.high - found.low > 1.4 * (np.quantile(naive, 0.975) - np.quantile(naive, 0.025))
    assert found.low < found.value < found.high


def test_too_few_models_have_no_interval():
    found = estimate([1.0, 2.0, 3.0], list(itertools.combinations("abc", 2)))
    assert found.value == 2.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert (found.models, found.merges) == (3, 3)


def test_a_share_lies_between_nought_and_one():
    found = share([i % 3 == 0 for i in range(len(PAIRS))], PAIRS)
    assert found.value == pytest.approx(10 / 28)
    assert 0 <= found.low < found.value < found.high <= 1


def test_spearman_is_that_of_scipy_also_with_ties():
    scipy_stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(2)
    x, y = generator.normal(size=28).round(1), generator.normal(size=28).round(1)
    found = spearman_estimate(x, y, PAIRS)
    assert found.value == pytest.approx(scipy_stats.spearmanr(x, y).statistic)
    assert found.low <= found.value <= found.high
