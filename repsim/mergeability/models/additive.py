"""What laws have in common whose effects add up along the columns of a design."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.models.base import Fitted, outcome
from repsim.mergeability.models.design import Design


@dataclasses.dataclass(frozen=True)
class AdditiveLaw(abc.ABC):
    """A law that makes retention of a sum of effects.

    Attributes:
        design: Its columns.
        mean: Place of a merge that is average in everything.
        weights: Coefficient of each column.
    """

    #: Name in files.
    NAME: ClassVar[str]

    design: Design
    mean: float
    weights: tuple[float, ...]

    @abc.abstractmethod
    def of_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """Retention from the columns of the design."""

    def predict(self, table: EvidenceTable) -> np.ndarray:
        """Retention of each row, between -1 and 1.2."""
        return self.of_matrix(self.design.matrix(table))

    def terms(self, table: EvidenceTable) -> dict[str, np.ndarray]:
        """Feature (and "method") -> its term of the sum, row by row."""
        parts = self.design.matrix(table) * np.array(self.weights)
        names = np.array(self.design.names)
        return {
            name: parts[:, names == name].sum(axis=1) for name in dict.fromkeys(self.design.names)
        }

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {"law": self.NAME, "mean": self.mean, "weights": list(self.weights),
                "design": self.design.to_json()}  # fmt: skip

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        design = Design.from_json(document["design"])
        return cls(design, document["mean"], tuple(document["weights"]))


@dataclasses.dataclass(frozen=True)
class PreparedDesign:
    """A design, filled in.

    Attributes:
        design: The columns.
        matrix: Their values.
        target: Outcomes.
        kinds: `[rows, kinds]` which merges are of a kind that may have steeper curves.
    """

    design: Design
    matrix: np.ndarray
    target: np.ndarray
    kinds: np.ndarray

    @classmethod
    def of(cls, design: Design, table: EvidenceTable) -> Self:
        """Fill a design with the rows of a table."""
        return cls(design, design.matrix(table), outcome(table), design.members(table))

    def predict(self, fitted: Fitted, rows: np.ndarray) -> np.ndarray:
        """Predict rows of the same table."""
        assert isinstance(fitted, AdditiveLaw)
        return fitted.of_matrix(self.matrix[rows])


def gram_of(design: Design, x: np.ndarray, kinds: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Inner products of the columns of a design, each row with its weight.

    The columns of a kind are those of all merges, zero elsewhere: products of the latter, taken
    apart by the kinds that merges are of, are all that there is to compute.

    Args:
        design: The columns.
        x: `[rows, columns]`, their values.
        kinds: `[rows, kinds]`, which rows are merges of which kind.
        weight: `[rows]`.

    Returns:
        `[columns, columns]`.
    """
    levels, places = len(design.levels), design.places
    found = np.zeros((x.shape[1], x.shape[1]))
    weighted = x[:, : places[0].stop] * np.sqrt(weight)[:, None]
    codes = kinds @ (1 << np.arange(kinds.shape[1]))
    for code in np.unique(codes):
        part = weighted[codes == code]
        products = part.T @ part
        found[:levels, :levels] += products[:levels, :levels]
        mine = [place for bit, place in enumerate(places[1:]) if code >> bit & 1]
        for place in (places[0], *mine):
            found[:levels, place] += products[:levels, levels:]
            found[place, :levels] += products[levels:, :levels]
            for other in (places[0], *mine):
                found[place, other] += products[levels:, levels:]
    return found
