"""Regression on near known cases: their mean, or what they gave beyond an additive model."""

from __future__ import annotations

from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from repsim.stats.additive import LEAST, MOST, AdditiveRegressor

#: Known cases that are looked at, and the weight of the one more that was as forecast.
NEIGHBOURS, RELUCTANCE = 10, 0.06
#: Squared distance, in units of squared outcome, at which a near case has lost half of its weight;
#: what is added for another category, and for another kind of case.
NEAR, OTHER_CATEGORY, OTHER_KIND = 0.02, 0.05, 9.0


class LocalRegressor(AdditiveRegressor):
    """Additive model plus a weighted mean of what it missed of cases whose features act alike."""

    def remember(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Take cases as known, of a model that is fitted."""
        return self._remember(self.layout_.columns(X), X, y)

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Fit the additive model, and remember what it missed."""
        self.n_features_in_ = X.shape[1]
        self.layout_ = self.layout or self.lay_out(X)
        columns = self.layout_.columns(X)
        return self._fit(columns, y)._remember(columns, X, y)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Outcome of each row, between -1 and 1.2."""
        return self.both(X)[1]

    def both(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the additive model gives, and what it gives with that of near known cases."""
        columns = self.layout_.columns(X)
        plain = self._predicted(columns)
        distance, which = self.known_.kneighbors(self._places(columns, X))
        weight = 1.0 / (1.0 + distance**2 / NEAR)
        # Drawn towards 0: few near cases, or none, say little.
        nearby = (weight * self.missed_[which]).sum(1) / (weight.sum(1) + RELUCTANCE)
        return plain, np.clip(plain + nearby, LEAST, MOST)

    def _remember(self, columns: np.ndarray, X: np.ndarray, y: np.ndarray) -> Self:
        from sklearn.neighbors import NearestNeighbors

        self.missed_ = np.asarray(y) - self._predicted(columns)
        nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(X)))
        self.known_ = nearest.fit(self._places(columns, X))
        return self

    def _places(self, columns: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Effects of features, then category and kinds, so that distances are as stated above."""
        count, codes = len(self.layout_.bases), np.array(self.layout_.categories)
        category = (X[:, -1:] == codes) * np.sqrt(OTHER_CATEGORY / 2)
        kinds = X[:, count:-1] * np.sqrt(OTHER_KIND)
        return np.concatenate([self._effects(columns)[:, :-1], category, kinds], axis=1)


class BlendedRegressor(LocalRegressor):
    """The mean of a local regressor and of the nearest known cases of the same category."""

    def both(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the additive model gives, and the mean of both."""
        plain, kept = super().both(X)
        return plain, np.clip((kept + self.nearest_.predict(X)) / 2, LEAST, MOST)

    def _remember(self, columns: np.ndarray, X: np.ndarray, y: np.ndarray) -> Self:
        self.nearest_ = NeighbourRegressor().fit(X, np.asarray(y))
        return super()._remember(columns, X, y)


class NeighbourRegressor(RegressorMixin, BaseEstimator):
    """k nearest known cases of the same category, weighted by closeness in standard deviations."""

    def __init__(
        self, n_neighbors: int = 5, *, layout: tuple[np.ndarray, np.ndarray] | None = None
    ) -> None:
        self.n_neighbors = n_neighbors
        self.layout = layout

    def lay_out(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each feature."""
        return spread_of(X[:, :-1])

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Remember the rows."""
        self.n_features_in_ = X.shape[1]
        self.layout_ = self.layout or self.lay_out(X)
        self.points_, self.target_ = (standardised(X[:, :-1], *self.layout_), X[:, -1]), y
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Weighted mean outcome; a category that is not known has those of all."""
        from sklearn.neighbors import KNeighborsRegressor

        points, (known, codes) = standardised(X[:, :-1], *self.layout_), self.points_
        root = np.sqrt(points.shape[1])
        found = np.empty(len(X))
        for code in np.unique(X[:, -1]):
            mine, theirs = X[:, -1] == code, codes == code
            if not theirs.any():
                theirs = np.ones(len(codes), dtype=bool)
            nearest = KNeighborsRegressor(
                min(self.n_neighbors, int(theirs.sum())), weights=lambda d: 1.0 / (0.05 + d / root)
            )
            found[mine] = nearest.fit(known[theirs], self.target_[theirs]).predict(points[mine])
        return found


def standardised(values: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """In units of the spread of known cases; 0 where a value is missing."""
    return np.nan_to_num((values - centre) / scale, posinf=0.0, neginf=0.0)


def spread_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of features over rows that have them."""
    known = ~np.isnan(values)
    count = np.maximum(known.sum(0), 1)  # no row may have a feature
    centre = values.sum(0, where=known) / count
    scale = np.sqrt(((values - centre) ** 2).sum(0, where=known) / count)
    return centre, np.where(scale > 0, scale, 1.0)
