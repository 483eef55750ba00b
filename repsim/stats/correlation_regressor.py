"""A linear regressor fitted by gradient ascent on its correlation with the outcome."""

from __future__ import annotations

from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

# The protocol of github.com/LuckerZOfficiaL/Mergeability-Bench (linear_optimization_loto_l1.py), of
# which the one start is unseeded. r does not depend on the scale, so that the penalty shrinks
# coefficients without end: what is found depends on start, rate and patience. Forecasts only rank.


class CorrelationRegressor(RegressorMixin, BaseEstimator):
    """Maximises Pearson's r minus an L1 penalty, by Adam, several starts (Mergeability-Bench)."""

    def __init__(
        self, *, penalty: float = 1.0, rate: float = 0.01, steps: int = 2000, patience: int = 100,
        gain: float = 1e-5, zero: float = 1e-3, starts: int = 3, seed: int = 0,
    ) -> None:  # fmt: skip
        self.penalty = penalty
        self.rate = rate
        self.steps = steps
        self.patience = patience
        self.gain = gain
        self.zero = zero
        self.starts = starts
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Fit to `[n, features]` and `[n]`."""
        X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
        self.n_features_in_ = X.shape[1]
        starts = np.random.default_rng(self.seed).standard_normal((self.starts, X.shape[1])) * 0.1
        found = [self._climb(X - X.mean(axis=0), y - y.mean(), start) for start in starts]
        total = sum(c / max(float(np.linalg.norm(c)), 1e-12) for c in found)
        self.coef_ = np.asarray(total / max(float(np.linalg.norm(total)), 1e-12))
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Scores that rank."""
        check_is_fitted(self)
        return np.asarray(np.asarray(X, dtype=np.float64) @ self.coef_)

    def _climb(self, X: np.ndarray, y: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Adam (Kingma and Ba 2015) on -r + penalty * |coefficients|."""
        c, mean, square = start.copy(), np.zeros(len(start)), np.zeros(len(start))
        moment, size = X.T @ y, float(np.linalg.norm(y))
        least, idle = np.inf, 0
        for step in range(1, self.steps + 1):
            forecast = X @ c
            norm = float(np.linalg.norm(forecast)) + 1e-12
            r = float(forecast @ y) / (norm * size + 1e-12)
            gradient = r * (X.T @ forecast) / norm**2 - moment / (norm * size + 1e-12)
            gradient += self.penalty * np.sign(c)
            loss = -r + self.penalty * float(np.abs(c).sum())
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
            root = np.sqrt(square / (1 - 0.999**step)) + 1e-8
            c = c - self.rate * (mean / (1 - 0.9**step)) / root
            better = loss < least - self.gain
            least, idle = (loss, 0) if better else (least, idle + 1)
            if idle >= self.patience:
                break
        kept = np.where(np.abs(c) < self.zero, 0.0, c)
        return kept if kept.any() else c
