"""Monotone additive regression: sums of curves that may count one way only, as an estimator."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

#: Ends of the outcome: a merge that is worse than this is lost all the same.
LEAST, MOST = -1.0, 1.2
#: Where along the values of a feature the knots of its curve may lie.
QUANTILES = (0.02, 0.2, 0.4, 0.6, 0.8, 0.98)
#: Significant digits that are stored, fewer than a double has, so that a refit on another machine,
#: whose linear algebra may differ in the last bits, writes the same file.
DIGITS = 9
#: Gauss-Newton steps; more of them change the fourth digit of the error on models never seen.
STEPS = 5
#: Where the scale without ends stops: an outcome within 0.1 % of its end.
EDGE = 7.0


def rounded(values: np.ndarray | Sequence[float]) -> list[float]:
    """Numbers as they are stored."""
    return [float(f"{float(value):.{DIGITS}g}") + 0.0 for value in values]


@dataclasses.dataclass(frozen=True)
class Basis:
    """A feature as I-splines of order 1: column j rises from 0 to 1 between knots j and j + 1."""

    direction: int
    knots: tuple[float, ...]
    centre: tuple[float, ...]

    @classmethod
    def of(cls, values: np.ndarray, direction: int, quantiles: Sequence[float]) -> Self:
        """Knots at quantiles of the values that are known."""
        finite = values[np.isfinite(values)]
        knots = tuple(dict.fromkeys(rounded(np.quantile(finite, list(quantiles)))))
        if len(knots) < 2:  # nearly all values are the same: the few others still count
            knots = tuple(dict.fromkeys(rounded([finite.min(), finite.max()])))
        return cls(direction, knots, tuple(rounded(_ramps(finite, knots).mean(axis=0))))

    def columns(self, values: np.ndarray) -> np.ndarray:
        """`[rows, knots - 1]`, centred."""
        raw = _ramps(values, self.knots) - np.array(self.centre)
        return np.where(np.isfinite(values)[:, None], raw, 0.0)


def _ramps(values: np.ndarray, knots: Sequence[float]) -> np.ndarray:
    low, high = np.array(knots[:-1]), np.array(knots[1:])
    with np.errstate(invalid="ignore"):
        return np.clip((values[:, None] - low) / (high - low), 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Columns of an additive model: one per category, then curves, then the same curves by kind."""

    categories: tuple[int, ...]
    bases: tuple[Basis, ...]
    kinds: tuple[int, ...] = ()

    @property
    def signs(self) -> np.ndarray:
        """Sign that the coefficient of each column must have; 0 for either."""
        once = [basis.direction for basis in self.bases for _ in basis.centre]
        return np.array([0] * len(self.categories) + once * (1 + len(self.kinds)))

    @property
    def owner(self) -> np.ndarray:
        """Number of the feature that each column belongs to; -1 for categories."""
        once = [number for number, basis in enumerate(self.bases) for _ in basis.centre]
        return np.array([-1] * len(self.categories) + once * (1 + len(self.kinds)))

    def columns(self, X: np.ndarray) -> np.ndarray:
        """`[rows, columns]`; a category that is not known has zeros."""
        found = [(X[:, -1:] == np.array(self.categories)[None, :]).astype(float)]
        curves = [basis.columns(X[:, number]) for number, basis in enumerate(self.bases)]
        every = np.concatenate(curves, axis=1) if curves else np.empty((len(X), 0))
        flags = X[:, len(self.bases) : -1]
        return np.concatenate(
            [*found, every, *(every * flags[:, kind : kind + 1] for kind in self.kinds)], axis=1
        )


class AdditiveRegressor(RegressorMixin, BaseEstimator):
    """Sum of an effect per category and of one curve per feature, by penalised least squares.

    Rows of `X` are the features (NaN where not known), then flags of the kinds of case for which
    curves may be steeper (0 or 1, any number), then the number of the category.

    Args:
        directions: One per feature: +1 if the outcome may only rise with it, -1 if it may only
            fall, 0 for either.
        quantiles: Where along its values a curve may bend; two of them make straight lines.
        alpha: Penalty on squared coefficients, per row.
        levelling: Whether effects add up on a scale without ends, of which the outcome is a
            logistic curve from -1 to 1.2; without it the sum is cut off there.
        layout: Columns that were laid out on more rows than are fitted; on `X` if None.

    Attributes:
        layout_: The columns.
        mean_: Place of a case that is average in everything.
        coef_: `[columns]`.

    Example:
        >>> x = np.linspace(0, 1, 50)
        >>> X = np.stack([x, -x, np.zeros(50)], axis=1)
        >>> model = AdditiveRegressor(directions=(1, 1)).fit(X, x**2)
        >>> bool(np.abs(model.predict(X) - x**2).max() < 0.05)
        True
    """

    def __init__(
        self,
        directions: Sequence[int] = (),
        *,
        quantiles: Sequence[float] = QUANTILES,
        alpha: float = 3e-4,
        levelling: bool = False,
        layout: Layout | None = None,
    ) -> None:
        self.directions = directions
        self.quantiles = quantiles
        self.alpha = alpha
        self.levelling = levelling
        self.layout = layout

    def lay_out(self, X: np.ndarray) -> Layout:
        """Columns for some rows: knots, means, categories and kinds that occur."""
        count = len(self.directions)
        bases = [
            Basis.of(X[:, number], direction, self.quantiles)
            for number, direction in enumerate(self.directions)
        ]
        flags = X[:, count:-1]
        kinds = [k for k in range(flags.shape[1]) if 0 < flags[:, k].mean() < 1]
        return Layout(tuple(int(c) for c in np.unique(X[:, -1])), tuple(bases), tuple(kinds))

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Fit to `[n, features + kinds + 1]` and `[n]`.

        Raises:
            numpy.linalg.LinAlgError: `alpha` is 0 and columns depend on one another.
        """
        X = np.asarray(X, dtype=np.float64)
        self.n_features_in_ = X.shape[1]
        self.layout_ = self.layout or self.lay_out(X)
        return self._fit(self.layout_.columns(X), np.asarray(y, dtype=np.float64))

    def _fit(self, columns: np.ndarray, y: np.ndarray) -> Self:
        mean, weights = self._levelled(columns, y) if self.levelling else self._linear(columns, y)
        self.mean_, self.coef_ = rounded([mean])[0], np.array(rounded(weights))
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Outcome of each row, between -1 and 1.2."""
        check_is_fitted(self)
        return self._predicted(self.layout_.columns(np.asarray(X, dtype=np.float64)))

    def _predicted(self, columns: np.ndarray) -> np.ndarray:
        total = self.mean_ + columns @ self.coef_
        return levelled(total) if self.levelling else np.clip(total, LEAST, MOST)

    def effects(self, X: np.ndarray) -> np.ndarray:
        """By how much each feature, and last the category, moves each row from the mean.

        On a scale without ends effects add up; what they make of the outcome together is divided
        among them in proportion, so that they add up there too.

        Returns:
            `[n, features + 1]`.
        """
        return self._effects(self.layout_.columns(np.asarray(X, dtype=np.float64)))

    def _effects(self, columns: np.ndarray) -> np.ndarray:
        parts = columns * self.coef_
        owner, count = self.layout_.owner, len(self.layout_.bases)
        terms = np.stack(
            [parts[:, owner == number].sum(axis=1) for number in (*range(count), -1)], axis=1
        )
        if not self.levelling:
            return terms
        mean, total = np.array(self.mean_), terms.sum(axis=1)
        moved = levelled(mean + total) - levelled(mean)
        flat = np.abs(total) <= 1e-9
        rate = np.where(flat, _slope(mean), moved / np.where(total == 0, 1.0, total))
        return terms * rate[:, None]

    def _linear(self, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        mean = float(y.mean())
        gram = x.T @ x / len(x) + self.alpha * np.eye(x.shape[1])
        moment = x.T @ (y - mean) / len(x)
        return mean, signed_least_squares(gram, moment, self.layout_.signs)

    def _levelled(self, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        """Gauss-Newton with halved steps."""
        share = np.clip((y.mean() - LEAST) / (MOST - LEAST), 0.05, 0.95)
        mean, weights = float(np.log(share / (1 - share))), np.zeros(x.shape[1])
        ridge = self.alpha * np.eye(x.shape[1])

        def loss_of(weights: np.ndarray) -> float:
            error = y - levelled(mean + x @ weights)
            return float((error**2).mean() + self.alpha * (weights**2).sum())

        loss = loss_of(weights)
        for _ in range(STEPS):
            eta = mean + x @ weights
            slope = np.maximum(_slope(eta), 0.02)
            pull = y - levelled(eta) + slope * (eta - mean)
            steep = x * slope[:, None]
            wanted = signed_least_squares(
                steep.T @ steep / len(x) + ridge, steep.T @ pull / len(x), self.layout_.signs
            )
            steps = (weights + part * (wanted - weights) for part in (1.0, 0.5, 0.25, 0.1))
            better = next(((w, f) for w in steps if (f := loss_of(w)) < loss - 1e-9), None)
            if better is None:
                break
            weights, loss = better
        return mean, weights


def levelled(eta: np.ndarray) -> np.ndarray:
    """Outcome at a place of the scale without ends: a logistic curve from -1 to 1.2."""
    return LEAST + (MOST - LEAST) / (1.0 + np.exp(-np.clip(eta, -EDGE, EDGE)))


def _slope(eta: np.ndarray) -> np.ndarray:
    share = 1.0 / (1.0 + np.exp(-np.clip(eta, -EDGE, EDGE)))
    return (MOST - LEAST) * share * (1.0 - share)


def signed_least_squares(gram: np.ndarray, moment: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Minimise w'Gw/2 - m'w under signs +1, -1 or 0 (free): Lawson and Hanson 1974."""
    flip, bound = np.where(signs < 0, -1.0, 1.0), signs != 0
    gram, moment, free = gram * np.outer(flip, flip), moment * flip, ~bound
    found = np.zeros(len(signs))
    rest, target = gram[np.ix_(bound, bound)], moment[bound]
    if free.any():
        factor, cross = cho_factor(gram[np.ix_(free, free)]), gram[np.ix_(free, bound)]
        through, alone = cho_solve(factor, cross), cho_solve(factor, moment[free])
        rest, target = rest - cross.T @ through, target - cross.T @ alone
    if bound.any():
        lower = np.linalg.cholesky(rest)
        found[bound] = nnls(lower.T, solve_triangular(lower, target, lower=True))[0]
    if free.any():
        found[free] = alone - through @ found[bound]
    return flip * found + 0.0
