"""Figures of forecasts: what is prepared, and that it is drawn as prepared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from repsim.core.errors import UsageError
from repsim.core.forecast import Interval
from repsim.plots.forecast import (
    FORECAST,
    FORECAST_MATRIX,
    LEAST,
    forecast_info,
    forecast_matrix_info,
)
from repsim.plots.save import save_figure
from repsim.testing.predictors import planted_forecast

REFUSED = planted_forecast(
    retention={}, worst=None, p_collapse=None, verdict="cannot say", refusal="too large"
)


def collapsing(**changes: object) -> object:
    kept = Interval(-0.9, -1.4, -0.4)
    return planted_forecast(
        retention={"eng_Latn": kept}, worst=kept, p_collapse=0.99, nearest=(), **changes
    )


def test_ways_are_ordered_by_their_worst_language_and_refusals_counted() -> None:
    data = forecast_info([collapsing(method="ties"), planted_forecast(), REFUSED])  # type: ignore[list-item]
    assert [row.label for row in data.rows] == ["linear", "ties"]
    assert "1 refused, not shown" in data.note
    assert data.languages == ("eng", "deu")
    assert "linear: worst language 0.90" in data.caption()


def test_known_merges_stand_beside_a_single_forecast() -> None:
    rows = forecast_info([planted_forecast(alignment="permutation")]).rows
    assert [(row.label, row.known) for row in rows] == [
        ("linear, permutation", False), ("known", True),
    ]  # fmt: skip
    assert np.isnan(rows[1].points[0].low)


def test_what_lies_far_below_is_drawn_at_the_edge() -> None:
    figure = FORECAST([collapsing()])  # type: ignore[list-item]
    (ax,) = figure.axes
    assert ax.get_xlim()[0] == LEAST
    shown = [line for line in ax.lines if line.get_marker() == "<"]
    assert [line.get_xdata()[0] for line in shown] == [LEAST]  # type: ignore[index]


def test_a_matrix_is_symmetric_and_strokes_mark_collapse(tmp_path: Path) -> None:
    pool = [
        planted_forecast(models=("a", "b")), collapsing(models=("a", "c")),
        planted_forecast(
            models=("b", "c"), retention={}, worst=None, p_collapse=None, refusal="no"
        ),
        planted_forecast(models=("a", "b", "c")),
    ]  # fmt: skip
    data = forecast_matrix_info(pool)  # type: ignore[arg-type]
    assert np.array_equal(data.values, data.values.T, equal_nan=True)
    assert data.values[0, 1] == 0.9
    assert data.scale.extend == "min"
    assert "hatched: 1 refused" in data.note
    assert "1 of 2 pairs are more likely to live" in data.caption()
    figure = FORECAST_MATRIX(pool)  # type: ignore[arg-type]
    assert len(figure.axes[0].lines) == 4  # two strokes in each of the two cells of a and c
    first = [p.read_bytes() for p in save_figure(figure, tmp_path / "a", ("png", "svg"))]
    again = FORECAST_MATRIX(pool)  # type: ignore[arg-type]
    assert first == [p.read_bytes() for p in save_figure(again, tmp_path / "b", ("png", "svg"))]


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(UsageError, match="refused") as stop:
        forecast_info([REFUSED])
    assert stop.value.hint == "too large"
    with pytest.raises(UsageError, match="no pair"):
        forecast_matrix_info([planted_forecast(models=("a", "b", "c"))])
    with pytest.raises(UsageError, match="one method"):
        forecast_matrix_info([planted_forecast(), planted_forecast(method="ties")])
    with pytest.raises(UsageError, match="more than 40"):
        forecast_info([planted_forecast()] * 41)
