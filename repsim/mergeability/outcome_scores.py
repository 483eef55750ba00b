"""Scores of forecasts of outcomes: within folds and pooled, with intervals over models."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from repsim.core.table import Table
from repsim.stats.bootstrap import interval_of, model_weights
from repsim.stats.weighted import LEAST, weighted_correlation

#: Fewest tested merges of a fold within which forecasts are ranked.
LEAST_RANKED = LEAST
#: Least number of draws that must define a score.
DRAWS = 200


class OutcomeScores(Table):
    """One row per split, regressor, method (or "all") and metric."""

    SCHEMA = "repsim/outcome-scores/1"
    STEM = "outcome_scores"
    COLUMNS: ClassVar = {
        "split": ("string", "what was held out"),
        "predictor": ("string", "what forecast"),
        "role": ("string", "predictor, regressor, protocol or baseline"),
        "method": (
            "string",
            "merge method, with its source if there are several; 'all': their mean",
        ),
        "metric": ("string", "pearson or spearman, within folds or pooled, or mae"),
        "value": ("float", "of the metric"),
        "ci_low": ("float", "lower end of the 95 % interval over models"),
        "ci_high": ("float", "upper end"),
        "folds": ("int", "folds that define it"),
        "rows": ("int", "merges that were tested"),
    }


class OutcomeForecasts(Table):
    """One row per split, regressor and tested merge (once per fold that tests it)."""

    SCHEMA = "repsim/outcome-forecasts/1"
    STEM = "outcome_forecasts"
    COLUMNS: ClassVar = {
        "split": ("string", "what was held out"),
        "fold": ("string", "fold of the split"),
        "predictor": ("string", "what forecast"),
        "parents": ("string", "names joined by ' + '"),
        "method": ("string", "merge method"),
        "source": ("string", "source"),
        "predicted": ("float", "outcome, without having seen it"),
        "observed": ("float", "outcome"),
    }


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Forecasts of one regressor: the row that each is about, its fold and its value."""

    rows: np.ndarray
    fold: np.ndarray
    predicted: np.ndarray
    names: tuple[str, ...]


class _Score(NamedTuple):
    value: float
    draws: np.ndarray
    folds: int
    rows: int


def scores_of(
    tested: Predictions, y: np.ndarray, method: np.ndarray, methods: tuple[str, ...],
    members: np.ndarray, *, draws: int = DRAWS, seed: int = 0,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Rows of metrics: by method, and their mean over methods; never pooled over methods."""
    # Within folds: the correlation among the merges of a fold and method, averaged over folds.
    # Pooled: over a method, a merge that two folds test counting twice. Never over methods: they
    # differ in level, and a forecast that knows the method alone would look good.
    weights = model_weights(members, draws=draws, seed=seed)
    known = np.isfinite(tested.predicted)
    if not known.any():
        return
    rows, fold, predicted = (v[known] for v in (tested.rows, tested.fold, tested.predicted))
    by_metric: dict[str, list[_Score]] = {}
    for code, name in enumerate(methods):
        mine = method[rows] == code
        if mine.sum() < LEAST_RANKED:
            continue
        part = (predicted[mine], y[rows[mine]], fold[mine], weights[:, rows[mine]])
        for metric, score in _scores(*part).items():
            by_metric.setdefault(metric, []).append(score)
            yield {"method": name, "metric": metric, **_told(score)}
    for metric, found in by_metric.items():
        defined = [score for score in found if np.isfinite(score.value)]
        if defined:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a draw that defines no method
                drawn = np.nanmean([score.draws for score in defined], axis=0)
            total = _Score(float(np.mean([s.value for s in defined])), drawn,
                           sum(s.folds for s in defined), sum(s.rows for s in defined))  # fmt: skip
            yield {"method": "all", "metric": metric, **_told(total)}


def _told(score: _Score) -> dict[str, Any]:
    low, high = interval_of(score.draws)
    return {"value": score.value, "ci_low": low, "ci_high": high, "folds": score.folds,
            "rows": score.rows}  # fmt: skip


def _scores(
    predicted: np.ndarray, observed: np.ndarray, fold: np.ndarray, weights: np.ndarray
) -> dict[str, _Score]:
    """Metrics of one method."""
    found = {}
    groups = [np.flatnonzero(fold == f) for f in np.unique(fold)]
    groups = [g for g in groups if len(g) >= LEAST_RANKED and np.ptp(observed[g]) > 0]
    ones = np.ones((1, len(predicted)))
    for metric, ranked in (("pearson", False), ("spearman", True)):
        parts = [
            weighted_correlation(predicted[g], observed[g], weights[:, g], ranked=ranked)
            for g in groups
        ]
        whole = [
            weighted_correlation(predicted[g], observed[g], ones[:, g], ranked=ranked)[0]
            for g in groups
        ]
        defined = [number for number, value in enumerate(whole) if np.isfinite(value)]
        if defined:
            heavy = np.array([weights[:, groups[n]].sum(axis=1) for n in defined])
            drawn = np.array([parts[n] for n in defined])
            heavy = np.where(np.isfinite(drawn), heavy, 0.0)
            with np.errstate(invalid="ignore"):
                mean = (np.nan_to_num(drawn) * heavy).sum(axis=0) / heavy.sum(axis=0)
            value = float(np.mean([whole[n] for n in defined]))
            found[metric] = _Score(value, mean, len(defined), len(predicted))
        pooled = weighted_correlation(predicted, observed, weights, ranked=ranked)
        value = float(weighted_correlation(predicted, observed, ones, ranked=ranked)[0])
        # Where nothing is ranked within folds, what is pooled ranks nothing but levels of folds.
        if np.isfinite(value) and defined:
            found[f"{metric}_pooled"] = _Score(value, pooled, len(groups), len(predicted))
    error = np.abs(predicted - observed)
    with np.errstate(invalid="ignore"):
        drawn = weights @ error / weights.sum(axis=1)
    found["mae"] = _Score(float(error.mean()), drawn, len(groups), len(predicted))
    return found
