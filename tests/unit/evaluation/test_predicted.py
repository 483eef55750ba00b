"""Predicted beside observed retention of merges."""

import dataclasses
from pathlib import Path

import pytest

from repsim.core.errors import InputError
from repsim.core.files import write_json
from repsim.core.forecast import FORECAST_FILE, Interval, MergeForecast, Reason
from repsim.evaluation.predicted import predicted_and_observed
from repsim.evaluation.table import EvaluationTable
from repsim.testing.predictors import planted_forecast

KEPT = {"eng_Latn": Interval(0.9, 0.7, 1.1), "deu_Latn": Interval(0.8, 0.75, 1.0)}


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    folder = tmp_path / "merged"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    made = planted_forecast(retention=KEPT, worst=Interval(0.8, 0.6, 1.0), p_collapse=0.1)
    write_json(folder / FORECAST_FILE, made.to_dict())
    return folder


def measured(**retention: float) -> EvaluationTable:
    return EvaluationTable(
        [
            {"model": "merged", "language": language, "metric": "retention", "value": value}
            for language, value in retention.items()
        ]
    )


def test_each_language_and_the_worst(merged: Path) -> None:
    rows = predicted_and_observed([str(merged)], measured(eng_Latn=0.95, deu_Latn=0.4))
    shown = [(r["language"], r["predicted"], r["observed"], r["within"]) for r in rows]
    assert shown == [
        ("eng_Latn", 0.9, 0.95, True), ("deu_Latn", 0.8, 0.4, False), ("worst", 0.8, 0.4, False),
    ]  # fmt: skip
    fates = [(r["p_collapse"], r["collapsed"], r["verdict"]) for r in rows]
    assert fates[1:] == [(None, None, None), (0.1, True, "merge")]


def test_the_worst_is_left_open_where_a_language_was_not_measured(merged: Path) -> None:
    (row,) = predicted_and_observed([str(merged)], measured(deu_Latn=0.9))
    assert (row["language"], row["collapsed"]) == ("deu_Latn", None)
    assert not predicted_and_observed(["zoo:eng-1"], measured(deu_Latn=0.9))


def test_a_damaged_forecast_is_named(merged: Path) -> None:
    write_json(merged / FORECAST_FILE, {"models": ["a"]})
    with pytest.raises(InputError, match="no forecast that can be read"):
        predicted_and_observed([str(merged)], measured(deu_Latn=0.9))


def test_reasons_are_told_apart_by_the_outcome_that_they_support() -> None:
    good, bad = Reason("x", 1.0, None, 0.2, "x is 1"), Reason("y", 1.0, None, -0.1, "<y> is 1")
    found = dataclasses.replace(planted_forecast(), verdict="merge", reasons=(good, bad))
    assert (found.reasons_for, found.reasons_against) == ((good,), (bad,))
    opposite = dataclasses.replace(found, p_collapse=0.9)
    assert (opposite.reasons_for, opposite.reasons_against) == ((bad,), (good,))
    assert "but: &lt;y&gt; is 1" in found._repr_html_()
    assert MergeForecast.from_dict(found.to_dict()) == found
