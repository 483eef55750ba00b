"""What was predicted of a merge before it was made, beside what it turned out to keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repsim.core.atlas import COLLAPSE
from repsim.core.files import read_json
from repsim.core.forecast import FORECAST_FILE, Interval, MergeForecast
from repsim.core.formatting import number
from repsim.evaluation.table import EvaluationTable
from repsim.models.inspect import locate, split_label


def predicted_and_observed(models: Sequence[str], table: EvaluationTable) -> list[dict[str, Any]]:
    """A row per merge and language that was forecast, and one for the worst of them."""
    rows: list[dict[str, Any]] = []
    for named in models:
        path = Path(split_label(named)[1]) / FORECAST_FILE
        if path.is_file():
            rows += _of_merge(locate(named).name, MergeForecast.from_dict(read_json(path)), table)
    return rows


def _of_merge(name: str, forecast: MergeForecast, table: EvaluationTable) -> list[dict[str, Any]]:
    found = {language: table.value(name, language, "retention") for language in forecast.retention}
    kept = {language: value for language, value in found.items() if value is not None}
    rows = [_row(name, language, forecast.retention[language], kept[language]) for language in kept]
    if forecast.worst is None or not kept or len(kept) < len(found):
        return rows  # the worst language may be one that was not measured
    least = min(kept.values())
    worst = _row(name, "worst", forecast.worst, least)
    verdict = forecast.verdict + (f" ({forecast.align_with})" if forecast.align_with else "")
    fate = {
        "p_collapse": forecast.p_collapse, "collapsed": least < COLLAPSE, "verdict": verdict,
    }  # fmt: skip
    # With one language, it is the worst one.
    return [*rows, worst | fate] if len(rows) > 1 else [rows[0] | fate]


def _row(name: str, language: str, predicted: Interval, observed: float) -> dict[str, Any]:
    low, high = predicted.low, predicted.high
    return {
        "merge": name,
        "language": language,
        "predicted": predicted.value,
        "interval": "–" if low is None or high is None else f"{number(low)} to {number(high)}",
        "observed": observed,
        "within": None if low is None or high is None else low <= observed <= high,
        "p_collapse": None,
        "collapsed": None,
        "verdict": None,
    }
