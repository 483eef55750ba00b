"""Gradient boosting with monotone trees: how much more there would be to learn. Not stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from repsim.core.errors import UsageError
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse
from repsim.mergeability.models.base import LEAST, MOST, Fitted, outcome


@dataclasses.dataclass(frozen=True)
class Trees:
    """Fitted trees of scikit-learn."""

    trees: Any

    def predict(self, table: EvidenceTable) -> np.ndarray:
        """Not offered outside the table that it was prepared on."""
        raise UsageError("boosted trees are a yardstick and are not stored")

    def effects(self, table: EvidenceTable) -> dict[str, np.ndarray]:
        """None: it has no effects."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """Not stored."""
        raise UsageError("boosted trees are a yardstick and are not stored")


@dataclasses.dataclass(frozen=True)
class _Prepared:
    matrix: np.ndarray
    target: np.ndarray
    signs: tuple[int, ...]

    def fit(self, rows: np.ndarray, strength: float) -> Trees:
        """Fit trees; the strength is the number of rounds."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        trees = HistGradientBoostingRegressor(
            max_iter=int(strength), learning_rate=0.1, max_leaf_nodes=8, min_samples_leaf=10,
            monotonic_cst=list(self.signs), early_stopping=False, random_state=0,
        )  # fmt: skip
        return Trees(trees.fit(self.matrix[rows], self.target[rows]))

    def predict(self, fitted: Fitted, rows: np.ndarray) -> np.ndarray:
        """Predict rows of the same table."""
        assert isinstance(fitted, Trees)
        return np.clip(fitted.trees.predict(self.matrix[rows]), LEAST, MOST)


@dataclasses.dataclass(frozen=True)
class _Kind:
    name: str = "boosting"
    label: str = "boosted monotone trees (yardstick)"
    strengths: Sequence[float] = (60,)
    ships: bool = False

    def prepare(self, table: EvidenceTable, uses: Sequence[FeatureUse]) -> _Prepared:
        """Features beside one column per method and alignment."""
        factor = table.factor
        levels = sorted(set(factor))
        columns = [table[use.name] for use in uses] + [
            (factor == level).astype(float) for level in levels
        ]
        signs = (*(use.direction for use in uses), *(0 for _ in levels))
        return _Prepared(np.stack(columns, axis=1), outcome(table), signs)


BOOSTING = _Kind()
