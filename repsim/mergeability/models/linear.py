"""Linear laws on a design: ridge regression, and the monotone additive law."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse
from repsim.mergeability.models.additive import AdditiveLaw, PreparedDesign
from repsim.mergeability.models.base import LEAST, MOST, outcome, rounded
from repsim.mergeability.models.design import QUANTILES, make_design


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
        by_alignment: Whether aligned merges may have curves of their own.
        strengths: Penalties on squared coefficients to choose from, per row.
        ships: It can be stored.
    """

    name: str
    label: str
    quantiles: tuple[float, ...]
    monotone: bool
    by_alignment: bool = False
    strengths: Sequence[float] = (1e-4, 1e-3, 1e-2)
    ships: bool = True

    def prepare(self, table: EvidenceTable, uses: Sequence[FeatureUse]) -> Prepared:
        """Lay out the columns once; fits on subsets share them."""
        design = make_design(
            table, uses, quantiles=self.quantiles, by_alignment=self.by_alignment,
            monotone=self.monotone,
        )  # fmt: skip
        return Prepared(design, design.matrix(table), outcome(table))


class Prepared(PreparedDesign):
    """A design, filled in."""

    def fit(self, rows: np.ndarray, strength: float) -> LinearLaw:
        """Penalised least squares with the signs that the design demands."""
        x, y = self.matrix[rows], self.target[rows]
        mean = float(y.mean())
        gram = x.T @ x / len(rows) + strength * np.eye(x.shape[1])
        weights = signed_least_squares(gram, x.T @ (y - mean) / len(rows), self.design.signs)
        return LinearLaw(self.design, rounded([mean])[0], tuple(rounded(weights)))


def signed_least_squares(gram: np.ndarray, moment: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Minimise w' G w / 2 - m' w where some coefficients must have a sign.

    A free coefficient is the difference of two that are not negative; what remains is non-negative
    least squares (Lawson and Hanson 1974) on the Cholesky factor of G, which is far smaller than
    the rows that it sums up.

    Args:
        gram: `[p, p]`, positive definite.
        moment: `[p]`.
        signs: +1, -1 or 0 for either.

    Returns:
        `[p]`.

    Example:
        >>> moment, signs = np.array([2.0, -3.0, -4.0]), np.array([1, 1, 0])
        >>> signed_least_squares(np.eye(3), moment, signs).tolist()
        [2.0, 0.0, -4.0]
    """
    if not signs.any():
        return np.linalg.solve(gram, moment)
    from scipy.linalg import solve_triangular
    from scipy.optimize import nnls

    flip = np.where(signs < 0, -1.0, 1.0)
    free = np.flatnonzero(signs == 0)
    expand = np.concatenate([np.diag(flip), -np.eye(len(signs))[:, free]], axis=1)
    factor = np.linalg.cholesky(gram)
    target = solve_triangular(factor, moment, lower=True)
    found, _ = nnls(factor.T @ expand, target, maxiter=50 * expand.shape[1])
    return expand @ found + 0.0


RIDGE = LinearKind("ridge", "ridge regression", (0.02, 0.98), monotone=False)
ADDITIVE = LinearKind("additive", "monotone additive law", QUANTILES, monotone=True)
ADDITIVE_BY_ALIGNMENT = LinearKind(
    "additive-by-alignment", "monotone additive law, steeper where aligned", QUANTILES,
    monotone=True, by_alignment=True,
)  # fmt: skip
