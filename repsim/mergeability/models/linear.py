"""Linear laws on a design: ridge regression, and the monotone additive law."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse
from repsim.mergeability.models.additive import AdditiveLaw, PreparedDesign, gram_of
from repsim.mergeability.models.base import LEAST, MOST, rounded
from repsim.mergeability.models.design import QUANTILES, make_design

#: Slopes and coefficients that are smaller than the largest moment by this count as zero.
TINY = 1e-11


class LinearLaw(AdditiveLaw):
    """Retention as a sum of effects, cut off where retention ends."""

    NAME = "linear"

    def of_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """Retention from the columns of the design."""
        return np.clip(self.mean + matrix @ np.array(self.weights), LEAST, MOST)

    def effects(self, table: EvidenceTable) -> dict[str, np.ndarray]:
        """Feature (and "method") -> what it adds to each row, before the cut."""
        return self.terms(table)


@dataclasses.dataclass(frozen=True)
class LinearKind:
    """How a linear law is laid out and fitted.

    Attributes:
        name: Name.
        label: Name for people.
        quantiles: Where curves may bend.
        monotone: Whether declared directions bind.
        by_kind: Whether curves may be steeper for some kinds of merges.
        strengths: Penalties on squared coefficients to choose from, per row.
        ships: It can be stored.
    """

    name: str
    label: str
    quantiles: tuple[float, ...]
    monotone: bool
    by_kind: bool = False
    strengths: Sequence[float] = (1e-4, 1e-3, 1e-2)
    ships: bool = True

    def prepare(self, table: EvidenceTable, uses: Sequence[FeatureUse]) -> Prepared:
        """Lay out the columns once; fits on subsets share them."""
        design = make_design(
            table, uses, quantiles=self.quantiles, by_kind=self.by_kind,
            monotone=self.monotone,
        )  # fmt: skip
        return Prepared.of(design, table)


class Prepared(PreparedDesign):
    """A design, filled in."""

    def fit(self, rows: np.ndarray, strength: float) -> LinearLaw:
        """Penalised least squares with the signs that the design demands."""
        x, y = self.matrix[rows], self.target[rows]
        mean = float(y.mean())
        gram = gram_of(self.design, x, self.kinds[rows], np.full(len(rows), 1 / len(rows)))
        gram += strength * np.eye(x.shape[1])
        weights = signed_least_squares(gram, x.T @ (y - mean) / len(rows), self.design.signs)
        return LinearLaw(self.design, rounded([mean])[0], tuple(rounded(weights)))


def signed_least_squares(
    gram: np.ndarray, moment: np.ndarray, signs: np.ndarray, start: np.ndarray | None = None
) -> np.ndarray:
    """Minimise w' G w / 2 - m' w where some coefficients must have a sign.

    Block principal pivoting (Portugal, Judice and Vicente 1994; Kim and Park 2011): every
    coefficient that breaks its sign, or that is held at zero and would not stay there, changes
    sides; one at a time where that goes round in circles. It ends, because G is positive definite.

    Args:
        gram: `[p, p]`, positive definite.
        moment: `[p]`.
        signs: +1, -1 or 0 for either.
        start: A solution that may be near, which saves time and changes nothing.

    Returns:
        `[p]`.

    Raises:
        numpy.linalg.LinAlgError: G is not positive definite, or nearly not.

    Example:
        >>> moment, signs = np.array([2.0, -3.0, -4.0]), np.array([1, 1, 0])
        >>> signed_least_squares(np.eye(3), moment, signs).tolist()
        [2.0, 0.0, -4.0]
    """
    flip, bound = np.where(signs < 0, -1.0, 1.0), signs != 0
    flipped, target = gram * np.outer(flip, flip), moment * flip
    tiny = TINY * float(np.abs(target).max(initial=0.0))
    free = ~bound if start is None else ~bound | (start != 0)
    fewest, patience = len(signs) + 1, 3
    for _ in range(100 + 10 * len(signs)):
        found = np.zeros(len(signs))
        found[free] = np.linalg.solve(flipped[np.ix_(free, free)], target[free])
        slope = flipped @ found - target
        wrong = np.where(free, bound & (found < -tiny), slope < -tiny)
        if not wrong.any():
            return flip * np.where(bound, np.maximum(found, 0.0), found) + 0.0
        if wrong.sum() < fewest:
            fewest, patience = int(wrong.sum()), 3
        elif patience:
            patience -= 1
        else:
            wrong = np.arange(len(wrong)) == np.flatnonzero(wrong)[-1]
        free = free ^ wrong
    raise np.linalg.LinAlgError("signs of coefficients cannot be told: G is nearly singular")


RIDGE = LinearKind("ridge", "ridge regression", (0.02, 0.98), monotone=False)
ADDITIVE = LinearKind("additive", "monotone additive law", QUANTILES, monotone=True)
ADDITIVE_BY_KIND = LinearKind(
    "additive-by-kind", "monotone additive law, steeper for some kinds of merges", QUANTILES,
    monotone=True, by_kind=True,
)  # fmt: skip
