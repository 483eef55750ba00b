"""Learning rates by step."""

from __future__ import annotations

import itertools

import pytest

from repsim.pretraining.schedule import Schedule


def test_wsd_warms_up_stays_and_decays() -> None:
    schedule = Schedule("wsd", peak=2.0, steps=100, warmup=10, decay=20, final=0.1)
    rates = [schedule(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9:80] == [2.0] * 71
    assert all(a > b for a, b in itertools.pairwise(rates[80:]))
    assert 0.2 < rates[-1] < 0.4
    assert schedule(100) == pytest.approx(0.2)


def test_cosine_falls_from_peak_to_final() -> None:
    schedule = Schedule("cosine", peak=1.0, steps=110, warmup=10, final=0.0)
    assert schedule(10) == pytest.approx(1.0)
    assert schedule(60) == pytest.approx(0.5)
    assert schedule(110) == pytest.approx(0.0)


def test_constant_stays() -> None:
    schedule = Schedule("constant", peak=0.3, steps=5)
    assert {schedule(step) for step in range(5)} == {0.3}
