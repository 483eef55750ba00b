"""An additive model, and what near known cases gave beyond it (regression on local residuals)."""

from __future__ import annotations

from typing import Self

import numpy as np

from repsim.stats.additive import LEAST, MOST, AdditiveRegressor

#: Known cases that are looked at, and the weight of the one more that was as forecast.
NEIGHBOURS, RELUCTANCE = 10, 0.06
#: Squared distance, in units of squared outcome, at which a near case has lost half of its weight;
#: what is added for another category, and for another kind of case.
NEAR, OTHER_CATEGORY, OTHER_KIND = 0.02, 0.05, 9.0


class LocalRegressor(AdditiveRegressor):
    """Additive model plus a weighted mean of what it missed of cases whose features act alike."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Fit the additive model, and remember what it missed."""
        super().fit(X, y)
        return self.remember(X, y)

    def remember(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Take cases as known, of a model that is fitted."""
        from sklearn.neighbors import NearestNeighbors

        self.missed_ = np.asarray(y) - super().predict(X)
        self.known_ = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(X))).fit(self._places(X))
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Outcome of each row, between -1 and 1.2."""
        return np.clip(super().predict(X) + self.nearby(X), LEAST, MOST)

    def nearby(self, X: np.ndarray) -> np.ndarray:
        """What near known cases gave beyond the additive model, drawn towards 0."""
        distance, which = self.known_.kneighbors(self._places(X))
        weight = 1.0 / (1.0 + distance**2 / NEAR)
        return np.asarray((weight * self.missed_[which]).sum(1) / (weight.sum(1) + RELUCTANCE))

    def _places(self, X: np.ndarray) -> np.ndarray:
        """Effects of features, then category and kinds, so that distances are as stated above."""
        count, codes = len(self.layout_.bases), np.array(self.layout_.categories)
        category = (X[:, -1:] == codes) * np.sqrt(OTHER_CATEGORY / 2)
        kinds = X[:, count:-1] * np.sqrt(OTHER_KIND)
        return np.concatenate([self.effects(X)[:, :-1], category, kinds], axis=1)
