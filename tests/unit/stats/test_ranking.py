"""Ranking methods by crossed trials: planted orders, ties, and what is left out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from repsim.stats.ranking import rank, rank_rows


def trials(units: int, layers: int) -> dict[str, object]:
    """A grid of units x layers, one test."""
    grid = [(unit, layer) for unit in range(units) for layer in range(layers)]
    return {
        "groups": ["t"] * len(grid),
        "units": [(str(unit),) for unit, _ in grid],
        "layers": [layer for _, layer in grid],
        "weights": np.ones(len(grid)),
    }


def test_tests_count_the_same_however_many_trials_they_have() -> None:
    (found,) = rank(
        ["m"], np.array([[1.0, 1.0, 1.0, 0.0]]), groups=["a", "a", "a", "b"],
        units=[("u",)] * 4, layers=[0] * 4, weights=np.ones(4),
    )  # fmt: skip
    assert found.score == 0.5
    assert np.isnan(found.low), "one unit gives no interval"
    assert found.tied


def test_comparisons_weigh_trials_within_a_test() -> None:
    (found,) = rank(
        ["m"], np.array([[1.0, 0.0]]), groups=["a", "a"], units=[("u",), ("v",)], layers=[0, 0],
        weights=np.array([3.0, 1.0]),
    )  # fmt: skip
    assert found.score == 0.75


def test_a_paired_difference_tells_methods_apart_whose_intervals_overlap() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.3, 0.7, size=24)
    scores = np.stack([base + 0.05, base, base + 0.05 + rng.normal(0, 0.1, 24)])
    first, *others = rank(["plus", "base", "noisy"], scores, **trials(8, 3))  # type: ignore[arg-type]
    found = {one.name: one for one in (first, *others)}
    assert found["plus"].low < found["base"].high
    assert not found["base"].tied
    assert found["noisy"].tied


def test_an_interval_over_units_covers_the_spread_of_units_not_of_trials() -> None:
    """40 equal trials of each of 6 units say no more than 6 numbers do."""
    means = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    (found,) = rank(["m"], np.repeat(means, 40)[None], **trials(6, 40))  # type: ignore[arg-type]
    error = means.std() / 6**0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_false_ties_and_false_wins_of_equal_methods_are_rare() -> None:
    """The better of two equal methods, picked afterwards, is told apart in about 5 % of cases."""
    rng = np.random.default_rng(1)
    told = 0
    for _ in range(100):
        scores = rng.binomial(10, 0.8, size=(2, 36)) / 10
        told += not rank(["a", "b"], scores, **trials(12, 3), draws=200)[1].tied  # type: ignore[arg-type]
    assert told <= 12


def test_pairs_that_share_models_say_less_than_as_many_models() -> None:
    """28 pairs of 8 models, a pair the mean of its models: the interval is that of 8 models."""
    rng = np.random.default_rng(3)
    pairs = list(itertools.combinations("abcdefgh", 2))
    widths = []
    for _ in range(20):
        own = dict(zip("abcdefgh", rng.normal(0.8, 0.1, size=8), strict=True))
        scores = np.array([[(own[a] + own[b]) / 2 for a, b in pairs]])
        every: dict[str, object] = {
            "groups": ["t"] * 28,
            "layers": [0] * 28,
            "weights": np.ones(28),
        }
        one = [
            rank(["m"], scores, units=units, draws=400, **every)[0]  # type: ignore[arg-type]
            for units in (pairs, [(str(i),) for i in range(28)])
        ]  # fmt: skip
        widths.append([found.high - found.low for found in one])
    dyadic, plain = np.mean(widths, axis=0)
    assert dyadic == pytest.approx(2 * 1.96 * 0.1 / 8**0.5, rel=0.3)
    assert plain < 0.6 * dyadic


def test_a_measure_that_lacks_a_trial_is_left_out() -> None:
    rows = [
        {"measure": m, "test": "t", "source": "s", "unit": u, "language": "e", "layer": 1,
         "correct": 1.0, "comparisons": 1}
        for m in ("whole", "part") for u in "abcd" if (m, u) != ("part", "d")
    ]  # fmt: skip
    found = rank_rows(rows, ["t"])
    assert [one.name for one in found.ranked] == ["whole"]
    assert (found.models, found.comparisons) == (4, 4)
    assert rank_rows(rows, ["other"]).ranked == ()
