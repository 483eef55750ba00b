"""The monotone additive law on a scale without ends: effects add up, retention levels off."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse
from repsim.mergeability.models.additive import AdditiveLaw, PreparedDesign, gram_of
from repsim.mergeability.models.base import LEAST, MOST, rounded
from repsim.mergeability.models.design import QUANTILES, make_design
from repsim.mergeability.models.linear import signed_least_squares

#: Steps of Gauss and Newton; more of them change the third digit of the error on models never seen.
STEPS = 8
#: Penalty per row, chosen by leave-models-out on the shipped atlas; a third or thrice as much
#: changes the error by less than its standard error.
STRENGTHS = (3e-4,)
#: Where the scale without ends stops: a retention within 0.1 % of its end.
EDGE = 7.0


def levelled(eta: np.ndarray) -> np.ndarray:
    """Retention at a place of the scale without ends: a logistic curve from -1 to 1.2.

    Example:
        >>> levelled(np.array([-100.0, 0.0, 100.0])).round(2).tolist()
        [-1.0, 0.1, 1.2]
    """
    return LEAST + (MOST - LEAST) / (1.0 + np.exp(-np.clip(eta, -EDGE, EDGE)))


def _slope(eta: np.ndarray) -> np.ndarray:
    share = 1.0 / (1.0 + np.exp(-np.clip(eta, -EDGE, EDGE)))
    return (MOST - LEAST) * share * (1.0 - share)


class SaturatingLaw(AdditiveLaw):
    """Retention as a logistic curve of a sum of effects."""

    NAME = "saturating"

    def of_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """Retention from the columns of the design."""
        return levelled(self.mean + matrix @ np.array(self.weights))

    def effects(self, table: EvidenceTable) -> dict[str, np.ndarray]:
        """Feature (and "method") -> its share in the way from the mean to the forecast.

        Effects add up on the scale without ends; what they make of retention together is divided
        among them in proportion, so that they add up there too.
        """
        terms = self.terms(table)
        total = np.sum(list(terms.values()), axis=0)
        moved = levelled(self.mean + total) - levelled(np.array(self.mean))
        rate = np.where(np.abs(total) > 1e-9, moved / np.where(total == 0, 1.0, total),
                        _slope(np.array(self.mean)))  # fmt: skip
        return {name: term * rate for name, term in terms.items()}


class Prepared(PreparedDesign):
    """A design, filled in."""

    def fit(self, rows: np.ndarray, strength: float) -> SaturatingLaw:
        """Penalised least squares of retention, by Gauss and Newton with halved steps."""
        x, y = self.matrix[rows], self.target[rows]
        share = np.clip((y.mean() - LEAST) / (MOST - LEAST), 0.05, 0.95)
        mean, weights = float(np.log(share / (1 - share))), np.zeros(x.shape[1])
        kinds, ridge = self.kinds[rows], strength * np.eye(x.shape[1])
        loss = self._loss(x, y, mean, weights, strength)
        for _ in range(STEPS):
            eta = mean + x @ weights
            slope = np.maximum(_slope(eta), 0.02)
            pull = y - levelled(eta) + slope * (eta - mean)
            gram = gram_of(self.design, x, kinds, slope**2 / len(rows)) + ridge
            moment = x.T @ (slope * pull) / len(rows)
            wanted = signed_least_squares(gram, moment, self.design.signs, weights)
            better = False
            for part in (1.0, 0.5, 0.25, 0.1):
                tried = weights + part * (wanted - weights)
                found = self._loss(x, y, mean, tried, strength)
                if found < loss - 1e-9:
                    better = True
                    weights, loss = tried, found
                    break
            if not better:
                break
        return SaturatingLaw(self.design, rounded([mean])[0], tuple(rounded(weights)))

    @staticmethod
    def _loss(
        x: np.ndarray, y: np.ndarray, mean: float, weights: np.ndarray, strength: float
    ) -> float:
        error = y - levelled(mean + x @ weights)
        return float((error**2).mean() + strength * (weights**2).sum())


@dataclasses.dataclass(frozen=True)
class SaturatingKind:
    """How the law is laid out and fitted.

    Attributes:
        name: Name.
        label: Name for people.
        by_kind: Whether curves may be steeper for some kinds of merges.
        strengths: Penalties on squared coefficients to choose from, per row.
        ships: It can be stored.
    """

    name: str = "saturating"
    label: str = "monotone additive law that levels off"
    by_kind: bool = False
    strengths: Sequence[float] = STRENGTHS
    ships: bool = True

    def prepare(self, table: EvidenceTable, uses: Sequence[FeatureUse]) -> Prepared:
        """Lay out the columns once; fits on subsets share them."""
        design = make_design(table, uses, quantiles=QUANTILES, by_kind=self.by_kind, monotone=True)
        return Prepared.of(design, table)


SATURATING = SaturatingKind()
SATURATING_BY_KIND = SaturatingKind(
    "saturating-by-kind", "monotone law that levels off, steeper for some kinds of merges", True
)
