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
