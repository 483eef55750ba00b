"""Nearest known merges of the same method and alignment: the law of one who believes in none."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from repsim.core.errors import UsageError
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse
from repsim.mergeability.models.base import Fitted, outcome


def standardised(
    table: EvidenceTable, names: Sequence[str], centre: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """`[rows, features]` in units of the spread of known merges; 0 where a value is missing."""
    raw = np.stack(
        [table.features.get(name, np.full(len(table), np.nan)) for name in names], axis=1
    )
    found = (raw - centre) / scale
    return np.where(np.isfinite(found), found, 0.0)


def spread_of(table: EvidenceTable, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of features over rows that have them."""
    raw = np.stack([table[name] for name in names], axis=1)
    scale = np.nanstd(raw, axis=0)
    return np.nanmean(raw, axis=0), np.where(scale > 0, scale, 1.0)


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """Known merges to look among."""

    points: np.ndarray
    factor: np.ndarray
    target: np.ndarray
    count: int

    def among(self, points: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """Mean outcome of the nearest, weighted by closeness."""
        found = np.full(len(points), float(self.target.mean()))
        for level in dict.fromkeys(factor):
            mine, theirs = np.flatnonzero(factor == level), np.flatnonzero(self.factor == level)
            if not len(theirs):
                theirs = np.arange(len(self.target))
            gaps = points[mine][:, None, :] - self.points[theirs][None, :, :]
            distance = np.sqrt((gaps**2).mean(axis=2))
            near = np.argsort(distance, axis=1, kind="stable")[:, : self.count]
            weight = 1.0 / (0.05 + np.take_along_axis(distance, near, axis=1))
            known = self.target[theirs][near]
            found[mine] = (weight * known).sum(axis=1) / weight.sum(axis=1)
        return found

    def predict(self, table: EvidenceTable) -> np.ndarray:
        """Not offered outside the table that it was prepared on."""
        raise UsageError("nearest merges are a yardstick and are not stored")

    def effects(self, table: EvidenceTable) -> dict[str, np.ndarray]:
        """None: it has no effects."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """Not stored."""
        raise UsageError("nearest merges are a yardstick and are not stored")


@dataclasses.dataclass(frozen=True)
class _Prepared:
    points: np.ndarray
    factor: np.ndarray
    target: np.ndarray

    def fit(self, rows: np.ndarray, strength: float) -> Neighbours:
        """Remember the rows; the strength is the number of neighbours."""
        return Neighbours(self.points[rows], self.factor[rows], self.target[rows], int(strength))

    def predict(self, fitted: Fitted, rows: np.ndarray) -> np.ndarray:
        """Look among the remembered rows."""
        assert isinstance(fitted, Neighbours)
        return fitted.among(self.points[rows], self.factor[rows])


@dataclasses.dataclass(frozen=True)
class _Kind:
    name: str = "neighbours"
    label: str = "nearest known merges"
    strengths: Sequence[float] = (3, 8, 20)
    ships: bool = False

    def prepare(self, table: EvidenceTable, uses: Sequence[FeatureUse]) -> _Prepared:
        """Standardise the features."""
        names = [use.name for use in uses]
        points = standardised(table, names, *spread_of(table, names))
        return _Prepared(points, table.factor, outcome(table))


NEIGHBOURS = _Kind()
