"""Intervals hold what they promise, probabilities mean what they say."""

import numpy as np
import pytest

from repsim.core.atlas import COLLAPSE
from repsim.core.errors import InputError
from repsim.stats.conformal import GRID, Calibration, calibrate, fit_logistic


def _drawn(count: int, seed: int, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts, and outcomes whose errors are larger in the middle than at the ends."""
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(-0.6, 0.9, count)
    size = spread * (0.3 + np.exp(-((predicted - 0.2) ** 2) / 0.15))
    return predicted, predicted + size * rng.normal(size=count)


def _held(ends: tuple[np.ndarray, np.ndarray], came: np.ndarray) -> float:
    return float(((came >= ends[0]) & (came <= ends[1])).mean())


def test_intervals_cover_ninety_percent_of_new_cases_everywhere() -> None:
    predicted, observed = _drawn(1500, 0)
    found = calibrate(predicted, observed, np.arange(1500))
    new, came = _drawn(20_000, 1)
    low, high = found.interval(new)
    inside = (came >= low) & (came <= high)
    assert inside.mean() == pytest.approx(0.9, abs=0.02)
    middle = np.abs(new - 0.2) < 0.15
    assert inside[middle].mean() == pytest.approx(0.9, abs=0.05)
    assert (high - low)[middle].mean() > 1.5 * (high - low)[new < -0.4].mean()


def test_each_group_of_parents_has_one_vote() -> None:
    rng = np.random.default_rng(0)
    good = rng.normal(0, 0.02, 100)
    bad = np.full(4000, 0.9)  # one group, merged four thousand times
    errors = np.concatenate([good, bad])
    groups = np.concatenate([np.arange(100), np.full(4000, 100)])
    low, high = calibrate(np.zeros(4100), errors, groups).interval(np.zeros(1))
    assert high[0] - low[0] < 0.3
    alone = calibrate(np.zeros(4100), errors, np.arange(4100)).interval(np.zeros(1))
    assert alone[1][0] > 0.8


def test_split_conformal_agrees_where_both_apply() -> None:
    """With errors of one size, the quantile of their absolute values must give the same."""
    rng = np.random.default_rng(3)
    predicted = rng.uniform(-0.5, 0.5, 2000)
    observed = predicted + rng.normal(0, 0.1, 2000)
    low, high = calibrate(predicted, observed, np.arange(2000)).interval(np.zeros(1))
    width = 2 * np.quantile(np.abs(observed - predicted), 0.9 * 2001 / 2000)
    assert high[0] - low[0] == pytest.approx(width, rel=0.08)


def test_probabilities_of_collapse_are_calibrated() -> None:
    predicted, observed = _drawn(1500, 0, spread=0.3)
    found = calibrate(predicted, observed, np.arange(1500))
    new, came = _drawn(20_000, 1, spread=0.3)
    p = found.below(new, COLLAPSE)
    assert (p > 0).all()
    assert (p < 1).all()
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        near = (p >= low) & (p < high)
        assert (came[near] < COLLAPSE).mean() == pytest.approx(p[near].mean(), abs=0.08)


def test_errors_that_grow_with_what_is_known_are_held_in_every_band() -> None:
    """Half of the cases err four times as much, and that is known; without it bands are missed."""

    def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        predicted, observed = _drawn(count, seed, spread=0.04)
        hard = np.random.default_rng(seed + 9).choice([0.5, 8.0], (count, 1))
        return predicted, predicted + (observed - predicted) * hard[:, 0] ** 0.5, hard

    predicted, observed, hard = drawn(1500, 0)
    groups = np.arange(1500)
    new, came, known = drawn(20_000, 1)
    found = calibrate(predicted, observed, groups, hard=hard)
    assert found.powers[0] == pytest.approx(0.5, abs=0.05)
    blind = calibrate(predicted, observed, groups)
    for low, high in ((-0.6, -0.1), (-0.1, 0.4), (0.4, 0.9)):
        for worth in (0.5, 8.0):
            rows = (new >= low) & (new < high) & (known[:, 0] == worth)
            ends = found.interval(new[rows], known[rows])
            assert _held(ends, came[rows]) == pytest.approx(0.9, abs=0.04)
            without = _held(blind.interval(new[rows]), came[rows])
            assert abs(without - 0.9) > 0.06
    unknown = found.interval(np.zeros(1), np.full((1, 1), np.nan))
    assert unknown[0][0] < found.interval(np.zeros(1), np.full((1, 1), 8.0))[0][0]


def test_a_history_is_held_against_errors_of_others() -> None:
    """Rows of one history err alike; one of its own region must not vouch for itself."""
    rng = np.random.default_rng(5)

    def drawn(histories: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        history = np.repeat(np.arange(histories), 30)
        predicted = rng.uniform(-0.5, 0.5, histories)[history]
        shift = rng.normal(0, 0.1, histories)[history]
        return predicted, predicted + shift + rng.normal(0, 0.02, len(history)), history

    shares = []
    for _ in range(12):
        predicted, observed, history = drawn(25)
        new, came, _ = drawn(100)
        ways = (calibrate(predicted, observed, np.arange(len(history)), of)
                for of in (history, None))  # fmt: skip
        shares.append([_held(found.interval(new), came) for found in ways])
    of_others, of_all = np.mean(shares, axis=0)
    assert of_others > 0.86
    assert of_all < of_others - 0.04


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(InputError, match="too few to tell what errors"):
        calibrate(np.zeros(100), np.zeros(100), np.arange(100) % 9)


def test_rows_without_a_forecast_do_not_count() -> None:
    predicted, observed = _drawn(200, 0)
    with_holes = np.concatenate([predicted, np.full(50, np.nan)])
    came = np.concatenate([observed, np.full(50, 0.7)])
    assert calibrate(with_holes, came, np.arange(250)) == calibrate(
        predicted, observed, np.arange(200)
    )


def test_it_survives_json() -> None:
    predicted, observed = _drawn(200, 0)
    found = calibrate(predicted, observed, np.arange(200))
    assert Calibration.from_json(found.to_json()) == found
    earlier = {**found.to_json(), "scores": [found.scores] * len(GRID)}
    for name in ("usual", "powers"):
        del earlier[name]
    read = Calibration.from_json(earlier)
    assert read.interval(predicted, np.ones((200, 2)))[0] == pytest.approx(
        found.interval(predicted)[0], abs=1e-6
    )


def test_a_score_that_says_nothing_gives_the_share() -> None:
    rng = np.random.default_rng(0)
    label = (rng.uniform(size=400) < 0.3).astype(float)
    curve = fit_logistic(-label + 0.0, label, np.ones(400))
    assert curve is not None
    assert curve.slope == 0.0
    assert curve.probability(np.array([5.0]))[0] == pytest.approx(label.mean(), abs=0.01)
    assert fit_logistic(rng.normal(size=400), np.ones(400), np.ones(400)) is None
