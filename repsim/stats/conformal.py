"""Intervals and probabilities from errors that were made on models never seen.

Conformal prediction (Vovk, Gammerman and Shafer 2005) with residuals out of fold, as the
cross-conformal methods of Barber et al. 2021 (arXiv 1905.02928) have them; three things are
changed. Folds hold out models, not rows, because rows that share a model are not
exchangeable. Errors are divided by the size that they usually have at that forecast (locally
weighted scores, Lei et al. 2018), because a merge that surely collapses is forecast better than one
on the edge. And the distribution of these scores is that of forecasts nearby (localised conformal
prediction, Guan 2023): where forecasts are low, outcomes can only be higher, so that one
distribution for all would hold too many outcomes in some bands and too few in others.

Coverage holds in every band of *forecasts*. In bands of *outcomes* nothing of the kind can be had:
a merge whose outcome is rare at its forecast lies outside by construction.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from repsim.core.errors import InputError
from repsim.stats.additive import LEAST, MOST, rounded

#: Forecasts at which the usual size of an error and the distribution of scores are stored.
GRID = np.linspace(LEAST, MOST, 23)
#: Width of the neighbourhood, in retention, over which errors are averaged.
BANDWIDTH = 0.1
#: No error is taken to be smaller than this: what a retention is measured to.
FLOOR = 0.01
#: Scores that are kept at each of these forecasts: evenly spaced quantiles.
KEPT = 101
#: Digits of a stored score.
SCORE_DIGITS = 4
#: Groups of parents from anywhere that are added to those of a neighbourhood.
ELSEWHERE = 20.0
#: Where groups of parents share histories they count for no more than this: new models are of a
#: history of their own, and err more than others of a known one. Chosen on the shipped atlas, so
#: that intervals hold in every band of forecasts on models never seen.
HISTORIES = 14


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What errors a forecast makes on models never seen, at each forecast of `GRID`."""

    sizes: tuple[float, ...]
    scores: tuple[tuple[float, ...], ...]
    groups: int
    units: int

    def size(self, predicted: np.ndarray) -> np.ndarray:
        """Usual size of an error at some forecasts."""
        return np.interp(predicted, GRID, np.array(self.sizes))

    def interval(self, predicted: np.ndarray, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends of the interval that holds the outcome with probability `level`."""
        # As many units as are known may err less than the next: (n + 1) level out of n.
        within = min((1 + 1 / self.units) * level, 1.0)
        levels, size = np.linspace(0, 1, KEPT), self.size(predicted)
        ends = []
        for side in ((1 - within) / 2, (1 + within) / 2):
            at = [np.interp(side, levels, scores) for scores in self.scores]
            ends.append(np.clip(predicted + size * np.interp(predicted, GRID, at), LEAST, MOST))
        return ends[0], ends[1]

    def below(self, predicted: np.ndarray, threshold: float) -> np.ndarray:
        """Probability that outcomes lie below a threshold, never quite 0 or 1."""
        needed = (threshold - predicted) / self.size(predicted)
        levels, x = np.linspace(0, 1, KEPT), np.array(predicted, dtype=np.float64)
        place = np.clip((x - LEAST) / (GRID[1] - GRID[0]), 0, len(GRID) - 1)
        lower = np.minimum(np.nan_to_num(place).astype(int), len(GRID) - 2)
        share = np.full(x.shape, np.nan)
        for cell in np.unique(lower):
            mine = lower == cell
            one, other = (
                np.interp(needed[mine], self.scores[at], levels, left=0.0, right=1.0)
                for at in (cell, cell + 1)
            )
            share[mine] = one + (place[mine] - cell) * (other - one)
        return (share * self.groups + 0.5) / (self.groups + 1)

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Calibration:
        """Read what `to_json` wrote; one list of scores, as files had it before, is for all."""
        scores, groups = document["scores"], document["groups"]
        if not isinstance(scores[0], list | tuple):
            levels = np.linspace(0, 1, len(scores))
            scores = [np.interp(np.linspace(0, 1, KEPT), levels, scores).tolist()] * len(GRID)
        units = document.get("units", groups)
        return cls(tuple(document["sizes"]), tuple(map(tuple, scores)), groups, units)


def calibrate(
    predicted: np.ndarray, observed: np.ndarray, groups: np.ndarray,
    origins: np.ndarray | None = None,
) -> Calibration:  # fmt: skip
    """Errors to expect, from forecasts out of fold; votes go to histories and groups, half each."""
    known = np.isfinite(predicted) & np.isfinite(observed)
    x, y = predicted[known], observed[known]
    _, which, count = np.unique(groups[known], return_inverse=True, return_counts=True)
    if len(count) < 10:
        raise InputError(
            f"{len(count)} groups of parents are too few to tell what errors to expect",
            hint="ten or more are needed, and models that only some of them have",
        )
    weight, units = 1.0 / count[which], len(count)
    if origins is not None:
        _, of, rows = np.unique(origins[known], return_inverse=True, return_counts=True)
        units = min(units, HISTORIES) if len(rows) < units else units
        weight = weight / 2 + len(count) / (2 * len(rows) * rows[of])
    error = np.abs(y - x)
    kernel = np.exp(-0.5 * ((GRID[:, None] - x[None, :]) / BANDWIDTH) ** 2) * weight
    overall = float(np.average(error, weights=weight))
    # One typical error is mixed in, so that a region without merges does not look certain.
    sizes = (kernel @ error + overall) / (kernel.sum(axis=1) + 1.0)
    sizes = np.array(rounded(np.maximum(sizes, FLOOR)))
    scores = (y - x) / np.interp(x, GRID, sizes)
    order = np.argsort(scores, kind="stable")
    kept = []
    for local in kernel:
        mixed = (local + weight * ELSEWHERE / weight.sum())[order]
        cumulated = (np.cumsum(mixed) - mixed / 2) / mixed.sum()
        at = np.interp(np.linspace(0, 1, KEPT), cumulated, scores[order])
        kept.append(tuple(np.round(at, SCORE_DIGITS).tolist()))
    return Calibration(tuple(sizes.tolist()), tuple(kept), len(count), units)


@dataclasses.dataclass(frozen=True)
class Logistic:
    """A probability from a score: 1 / (1 + exp(-(intercept + slope score))), Platt 1999."""

    intercept: float
    slope: float

    def probability(self, score: np.ndarray) -> np.ndarray:
        """Probability of each score; NaN where the score is."""
        return 1.0 / (1.0 + np.exp(-np.clip(self.intercept + self.slope * score, -30, 30)))


def fit_logistic(score: np.ndarray, label: np.ndarray, weight: np.ndarray) -> Logistic | None:
    """Logistic curve by penalised maximum likelihood; targets drawn to a half as by Platt."""
    known = np.isfinite(score) & np.isfinite(label)
    s, t, w = score[known], label[known], weight[known]
    if len(s) < 10 or len(set(t)) < 2:
        return None
    ones, zeros = float(w[t == 1].sum()), float(w[t == 0].sum())
    target = np.where(t == 1, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    beta = np.array([math.log((ones + 1) / (zeros + 1)), 0.0])
    x = np.stack([np.ones_like(s), s], axis=1)
    for _ in range(60):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ beta, -30, 30)))
        gradient = x.T @ (w * (target - p)) - np.array([0.0, 1e-3]) * beta
        hessian = (x * (w * np.maximum(p * (1 - p), 1e-6))[:, None]).T @ x
        step = np.linalg.solve(hessian + np.diag([1e-6, 1e-3]), gradient)
        beta = beta + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-8:
            break
    if beta[1] < 0:  # the score says nothing: the share alone
        beta = np.array([math.log((ones + 1) / (zeros + 1)), 0.0])
    return Logistic(*rounded(beta))


#: Above the knee a forecast rises at a fraction of its pace, which keeps the order that a ceiling
#: would not. Round values near those that leave-models-out finds inside training rows; knees from
#: 0.8 to 0.9 with paces from 0.2 to 0.5 change the error on models never seen by less than 0.003.
KNEE, PACE = 0.85, 0.3


def shrunk(predicted: np.ndarray) -> np.ndarray:
    """Forecasts shrunk above the knee: of models never seen, those of 1 were 0.18 too high."""
    return np.where(predicted > KNEE, KNEE + PACE * (predicted - KNEE), predicted)


def should_shrink(predicted: np.ndarray, observed: np.ndarray, groups: np.ndarray) -> bool:
    """Whether forecasts out of fold come nearer in mean square if shrunk; one vote a group."""
    known = np.isfinite(predicted) & np.isfinite(observed)
    if not known.any():
        return False
    _, which, count = np.unique(groups[known], return_inverse=True, return_counts=True)
    x, y, weight = predicted[known], observed[known], 1.0 / count[which]
    straight, drawn = (np.average((p - y) ** 2, weights=weight) for p in (x, shrunk(x)))
    return bool(drawn < straight)
