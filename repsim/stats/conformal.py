"""Intervals and probabilities from errors that were made on models never seen.

Conformal prediction (Vovk, Gammerman and Shafer 2005) with residuals out of fold, as the
cross-conformal methods of Barber et al. 2021 (arXiv 1905.02928) have them; three things are
changed. Folds hold out models, not rows, because rows that share a model are not exchangeable.
Errors are divided by the size that they usually have (locally weighted scores, Lei et al. 2018) at
that forecast, times a power of what makes a forecast hard: a merge that surely collapses is
forecast better than one on the edge, and a share of little headroom worse than one of much. And
that size is learnt from other histories than the one that is scored, as the next merge will be of a
history of its own. No history is taken to be typical: (histories + 1) / histories of the level is
wanted of those that are known.

Coverage holds in every band of *forecasts*. In bands of *outcomes* nothing of the kind can be had:
a merge whose outcome is rare at its forecast lies outside by construction. What makes forecasts
hard, and that one distribution of scores serves all bands, was chosen after looking at the first
shipped atlas, its validation's dealing included; no other atlas was looked at.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from repsim.core.errors import InputError
from repsim.stats.additive import LEAST, MOST, rounded

#: Forecasts at which the usual size of an error is stored.
GRID = np.linspace(LEAST, MOST, 23)
#: Width of the neighbourhood, in retention, over which errors are averaged.
BANDWIDTH = 0.1
#: No error is taken to be smaller than this: what a retention is measured to.
FLOOR = 0.01
#: Scores that are kept: evenly spaced quantiles.
KEPT = 101
#: Digits of a stored score.
SCORE_DIGITS = 4
#: Parts of the histories that are held out when scores are made.
PARTS = 20
#: Fewest groups of parents that tell what errors to expect, and fewest histories that tell what to
#: expect of another: with fewer, errors are those on other groups.
LEAST_UNITS = 10
#: How much larger or smaller than usual at its forecast an error may be taken to be.
HARDEST = 3.0


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What errors a forecast makes on models never seen: `sizes` at each forecast of `GRID`."""

    sizes: tuple[float, ...]
    scores: tuple[float, ...]
    groups: int
    units: int
    usual: tuple[float, ...] = ()  # of each thing that makes a forecast hard
    powers: tuple[float, ...] = ()

    def size(self, predicted: np.ndarray, hard: np.ndarray | None = None) -> np.ndarray:
        """Usual size of an error at some forecasts; `hard`: `[forecasts, things]`, NaN: unknown."""
        size = np.interp(predicted, GRID, np.array(self.sizes))
        return (
            size
            if hard is None or not self.powers
            else size * _times(hard, self.usual, self.powers)
        )

    def interval(
        self, predicted: np.ndarray, hard: np.ndarray | None = None, level: float = 0.9
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends of the interval that holds the outcome with probability `level`."""
        # As many units as are known may err less than the next: (n + 1) level out of n.
        within = min((1 + 1 / self.units) * level, 1.0)
        sides = [(1 - within) / 2, (1 + within) / 2]
        at, size = (
            np.interp(sides, np.linspace(0, 1, KEPT), self.scores),
            self.size(predicted, hard),
        )
        low, high = (np.clip(predicted + size * score, LEAST, MOST) for score in at)
        return low, high

    def below(
        self, predicted: np.ndarray, threshold: float, hard: np.ndarray | None = None
    ) -> np.ndarray:
        """Probability that outcomes lie below a threshold, never quite 0 or 1."""
        needed = (threshold - predicted) / self.size(predicted, hard)
        share = np.interp(needed, self.scores, np.linspace(0, 1, KEPT), left=0.0, right=1.0)
        return (share * self.groups + 0.5) / (self.groups + 1)

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Calibration:
        """Read what `to_json` wrote; scores by forecast, as files had them before, are averaged."""
        scores = np.atleast_2d(np.array(document["scores"])).mean(axis=0)
        lists = {name: tuple(document.get(name, ())) for name in ("sizes", "usual", "powers")}
        groups = document["groups"]
        return cls(**lists, scores=tuple(scores.tolist()), groups=groups,
                   units=document.get("units", groups))  # fmt: skip


def calibrate(
    predicted: np.ndarray, observed: np.ndarray, groups: np.ndarray,
    origins: np.ndarray | None = None, hard: np.ndarray | None = None,
) -> Calibration:  # fmt: skip
    """Errors to expect, from forecasts out of fold; each group of parents has one vote.

    `hard`, `[rows, things]` and positive, grows with the error that is to be expected.
    """
    known = np.isfinite(predicted) & np.isfinite(observed)
    x, y = predicted[known], observed[known]
    _, which, count = np.unique(groups[known], return_inverse=True, return_counts=True)
    if len(count) < LEAST_UNITS:
        raise InputError(
            f"{len(count)} groups of parents are too few to tell what errors to expect",
            hint="ten or more are needed, and models that only some of them have",
        )
    weight, error = 1.0 / count[which], np.abs(y - x)
    kernel = np.exp(-0.5 * ((GRID[:, None] - x[None, :]) / BANDWIDTH) ** 2) * weight
    things = np.ones((len(x), 1)) if hard is None else hard[known]
    sizes = _sizes(kernel, error, weight)
    usual, powers = _powers(things, error / np.interp(x, GRID, sizes), weight)
    times = _times(things, usual, powers)
    error, signed = error / times, (y - x) / times
    unit, rows = which, count
    if origins is not None and len(set(origins[known])) >= LEAST_UNITS:
        _, unit, rows = np.unique(origins[known], return_inverse=True, return_counts=True)
    # The largest histories are held out one by one, lest little be left to learn from.
    part = np.argsort(np.argsort(-rows, kind="stable"), kind="stable")[unit] % PARTS
    scores = np.empty(len(x))
    for held in np.unique(part):
        mine = part == held
        sizes = _sizes(kernel[:, ~mine], error[~mine], weight[~mine])
        scores[mine] = signed[mine] / np.interp(x[mine], GRID, sizes)
    order = np.argsort(scores, kind="stable")
    cumulated = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    kept = np.interp(np.linspace(0, 1, KEPT), cumulated, scores[order])
    return Calibration(
        tuple(rounded(_sizes(kernel, error, weight))), tuple(np.round(kept, SCORE_DIGITS).tolist()),
        len(count), len(rows), usual, powers,
    )  # fmt: skip


def _sizes(kernel: np.ndarray, error: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Usual error at each forecast of `GRID`."""
    # One typical error is mixed in, so that a region without merges does not look certain.
    overall = float(np.average(error, weights=weight))
    return np.maximum((kernel @ error + overall) / (kernel.sum(axis=1) + 1.0), FLOOR)


def _powers(
    hard: np.ndarray, ratio: np.ndarray, weight: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Usual logarithms of what makes forecasts hard, and by which powers of it errors grow."""
    from sklearn.linear_model import GammaRegressor

    logs = np.ma.masked_invalid(np.log(hard))
    usual, spread = logs.mean(axis=0).filled(0.0), logs.std(axis=0).filled(0.0)
    spread = np.where(spread > 0, spread, np.inf)
    standard = ((logs - usual) / spread).filled(0.0)
    # Alike votes, small steps of a measurement and a little shrinkage keep the fit finite.
    model = GammaRegressor(alpha=0.01, max_iter=300)
    model.fit(standard, np.maximum(ratio, 0.02), sample_weight=weight / weight.mean())
    return tuple(rounded(usual)), tuple(rounded(np.maximum(model.coef_, 0.0) / spread))


def _times(hard: np.ndarray, usual: tuple[float, ...], powers: tuple[float, ...]) -> np.ndarray:
    """How many times as large as usual errors are; most where a thing that matters is unknown."""
    power = np.array(powers)
    logs = np.where(power > 0, np.log(hard) - np.array(usual), 0.0)
    found = np.exp(np.clip(np.nan_to_num(logs, nan=9.0) @ np.where(power > 0, power, 1), -9, 9))
    return np.clip(found, 1 / HARDEST, HARDEST)


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
