"""What a candidate law must be able to do, and the scale of its outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse

#: Retention below this counts as this much: worse than unigrams by as much again as the parents are
#: better. How far beyond that a merge is destroyed is of no use to anybody, and would rule the fit.
LEAST, MOST = -1.0, 1.2
#: Significant digits that are stored, fewer than a double has, so that a refit on another machine,
#: whose linear algebra may differ in the last bits, writes the same file.
DIGITS = 9


def outcome(table: EvidenceTable) -> np.ndarray:
    """Retention, brought into the range that is fitted and scored."""
    return np.clip(table["retention"], LEAST, MOST)


class Fitted(Protocol):
    """A law with its numbers."""

    def predict(self, table: EvidenceTable) -> np.ndarray:
        """Retention of each row."""
        ...

    def effects(self, table: EvidenceTable) -> dict[str, np.ndarray]:
        """Feature (and "method") -> by how much it moves each row from the mean of known merges."""
        ...

    def to_json(self) -> dict[str, Any]:
        """JSON-able; `fitted_from_json` reads it."""
        ...


class Kind(Protocol):
    """A candidate law: how it is fitted.

    Attributes:
        name: Name.
        label: Name for people.
        strengths: Settings of its regularisation that validation inside the training rows chooses
            from; one if there is nothing to choose.
        ships: Whether it can be stored as JSON; a law that cannot is a yardstick only.
    """

    name: str
    label: str
    strengths: Sequence[float]
    ships: bool

    def prepare(self, table: EvidenceTable, uses: Sequence[FeatureUse]) -> Prepared:
        """Do what all fits on subsets of the rows have in common."""
        ...


class Prepared(Protocol):
    """A table made ready for many fits on subsets of its rows."""

    def fit(self, rows: np.ndarray, strength: float) -> Fitted:
        """Fit on some rows."""
        ...

    def predict(self, fitted: Fitted, rows: np.ndarray) -> np.ndarray:
        """Predict others of the same table."""
        ...


def rounded(values: np.ndarray | Sequence[float]) -> list[float]:
    """Numbers as they are stored."""
    return [float(f"{float(value):.{DIGITS}g}") + 0.0 for value in values]
