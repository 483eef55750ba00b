"""Regressors on tables of outcomes: features, who the parents are, or both, by method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from repsim.mergeability.outcome_design import Design
from repsim.stats.additive import AdditiveRegressor
from repsim.stats.correlation_regressor import CorrelationRegressor
from repsim.stats.ranks import spearman

#: Features are cut off at these quantiles of the rows that are learnt from.
QUANTILES = (0.02, 0.98)
#: Standard deviations of the outcome per unit that `AdditiveRegressor` fits, whose outcomes have
#: ends at -1 and 1.2.
UNIT = 4.0

#: Design, outcomes (NaN for rows that are not learnt from), parameters -> forecast of every row.
Forecast = Callable[[Design, np.ndarray, Mapping[str, float]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class OutcomeRegressor:
    """How a regressor forecasts, and settings to choose from."""

    forecast: Forecast
    grid: tuple[Mapping[str, float], ...] = ({},)


def by_method(design: Design, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of a row's method and source; else of the method; else over methods."""
    known = np.isfinite(y)
    centre = np.full(len(y), np.nan)
    spread = np.full(len(y), np.nan)
    for codes in (design.method, design.cell):
        for code in np.unique(codes):
            mine = codes == code
            if (mine & known).sum() > 2:
                values = y[mine & known]
                centre[mine], spread[mine] = values.mean(), max(float(values.std()), 1e-12)
    told = np.isfinite(centre)
    if not told.any():
        return np.full(len(y), y[known].mean()), np.full(len(y), max(float(y[known].std()), 1e-12))
    means = [(centre[design.cell == c][0], spread[design.cell == c][0])
             for c in np.unique(design.cell[told])]  # fmt: skip
    middle, width = np.mean(means, axis=0)
    return np.where(told, centre, middle), np.where(told, spread, width)


def prepared(design: Design, known: np.ndarray) -> np.ndarray:
    """Features without gaps or extremes, in standard deviations, over the root of their number."""
    values = design.features
    with np.errstate(invalid="ignore"):
        middle = np.array([_mean(column[known]) for column in values.T])
    filled = np.where(np.isfinite(values), values, middle)
    low, high = np.quantile(filled[known], QUANTILES, axis=0)
    cut = np.clip(filled, low, high)
    scale = cut[known].std(axis=0)
    standard = (cut - cut[known].mean(axis=0)) / np.where(scale > 1e-12, scale, np.inf)
    return np.asarray(standard / np.sqrt(values.shape[1]))


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else 0.0


def learnt_signs(design: Design, target: np.ndarray) -> np.ndarray:
    """Directions that were stated, else the sign of the rank correlation in what is learnt from."""
    known = np.isfinite(target)
    found = design.signs.copy()
    for number in np.flatnonzero(found == 0):
        values = design.features[:, number]
        both = known & np.isfinite(values)
        rho = spearman(values[both], target[both])
        found[number] = 0 if rho != rho else int(np.sign(rho))
    return found


def _ridge(features: bool, members: bool) -> Forecast:
    """Ridge regression, one share of each coefficient common to all methods, one by method."""

    def forecast(design: Design, y: np.ndarray, setting: Mapping[str, float]) -> np.ndarray:
        from sklearn.linear_model import Ridge

        known = np.isfinite(y)
        centre, spread = by_method(design, y)
        parts = [prepared(design, known)] if features else []
        parts += [design.members.astype(float)] if members else []
        common = np.concatenate(parts, axis=1)
        flags = [(design.method == code)[:, None] for code in np.unique(design.method[known])]
        own = [common * flag for flag in flags] if len(flags) > 1 else []
        X = np.concatenate([common, *own], axis=1)
        model = Ridge(setting["alpha"], fit_intercept=False)
        model.fit(X[known], ((y - centre) / spread)[known])
        return np.asarray(centre + spread * model.predict(X))

    return forecast


def _additive(design: Design, y: np.ndarray, setting: Mapping[str, float]) -> np.ndarray:
    known = np.isfinite(y)
    centre, spread = by_method(design, y)
    target = (y - centre) / (UNIT * spread)
    X = np.concatenate([design.features, np.zeros((len(y), 1))], axis=1)
    usable = [bool(np.isfinite(c[known]).any() and np.nanstd(c[known]) > 0) for c in X[:, :-1].T]
    model = AdditiveRegressor(tuple(learnt_signs(design, target)[usable]), alpha=setting["alpha"])
    X = X[:, [*usable, True]]
    return np.asarray(centre + UNIT * spread * model.fit(X[known], target[known]).predict(X))


def _boosting(design: Design, y: np.ndarray, setting: Mapping[str, float]) -> np.ndarray:
    from sklearn.ensemble import HistGradientBoostingRegressor

    known = np.isfinite(y)
    centre, spread = by_method(design, y)
    target = (y - centre) / spread
    flags = [(design.method == code)[:, None] for code in np.unique(design.method[known])]
    X = np.concatenate([design.features, *flags], axis=1)
    trees = HistGradientBoostingRegressor(
        max_iter=60, learning_rate=0.1, max_leaf_nodes=8, min_samples_leaf=10,
        monotonic_cst=[*learnt_signs(design, target), *[0] * len(flags)],
        early_stopping=False, random_state=0,
    )  # fmt: skip
    return np.asarray(centre + spread * trees.fit(X[known], target[known]).predict(X))


def _correlation(design: Design, y: np.ndarray, setting: Mapping[str, float]) -> np.ndarray:
    """Features between -1 and 1 by the rows that are learnt from, in the manner of its authors."""
    known = np.isfinite(y)
    values = design.features
    middle = np.array([_mean(column[known]) for column in values.T])
    filled = np.where(np.isfinite(values), values, middle)
    low, high = filled[known].min(axis=0), filled[known].max(axis=0)
    X = 2 * (filled - low) / np.where(high > low, high - low, 1.0) - 1
    ranked = CorrelationRegressor().fit(X[known], y[known]).predict(X)
    slope, level = np.polyfit(ranked[known], y[known], 1) if np.ptp(ranked[known]) else (0.0, 0.0)
    return np.asarray(level + slope * ranked)


#: Regressors by name; their settings from the simplest on.
OUTCOME_REGRESSORS: dict[str, OutcomeRegressor] = {
    "mean": OutcomeRegressor(lambda design, y, setting: by_method(design, y)[0]),
    "members": OutcomeRegressor(_ridge(False, True), ({"alpha": 1.0},)),
    "ridge": OutcomeRegressor(
        _ridge(True, False), ({"alpha": 3.0}, {"alpha": 0.5}, {"alpha": 0.1})
    ),
    "additive": OutcomeRegressor(_additive, ({"alpha": 1e-2},)),
    "boosting": OutcomeRegressor(_boosting),
    "ridge-members": OutcomeRegressor(_ridge(True, True), ({"alpha": 3.0}, {"alpha": 0.5})),
    "correlation": OutcomeRegressor(_correlation),
}


def per_method(forecast: Forecast, design: Design, y: np.ndarray, setting: Any) -> np.ndarray:
    """One fit per method; NaN where a method is not known."""
    found = np.full(len(y), np.nan)
    for code in np.unique(design.method):
        mine = design.method == code
        if (mine & np.isfinite(y)).sum() >= 4:
            found[mine] = forecast(design.take(mine), y[mine], setting)
    return found
