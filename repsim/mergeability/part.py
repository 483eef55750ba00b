"""The predictor of one set of tiers: a law, what errors it makes, and where it knows its way."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.mergeability.conformal import Calibration, Logistic, calibrate, fit_logistic
from repsim.mergeability.crossfit import cross_fit
from repsim.mergeability.domain import Domain, fit_domain
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse, feature_uses
from repsim.mergeability.models.base import Fitted, outcome
from repsim.mergeability.models.candidates import MODELS, fitted_from_json
from repsim.mergeability.splits import LEAST_INNER, leave_models_out
from repsim.mergeability.upper_end import bent, should_bend

#: Blocks of models that are held out when errors are learnt.
BLOCKS = 8


@dataclasses.dataclass(frozen=True)
class Forecasts:
    """What is foretold of the rows of a table, and of its merges.

    Attributes:
        predicted, low, high: Retention of each row with its 90 % interval.
        refusals: Why it should not be said, by row; empty where it can.
        merge: Number of the merge of each row.
        worst, worst_low, worst_high: Least retention of each merge.
        p_collapse, p_useful: Probabilities by merge; NaN where not known.
    """

    predicted: np.ndarray
    low: np.ndarray
    high: np.ndarray
    refusals: tuple[str, ...]
    merge: np.ndarray
    worst: np.ndarray
    worst_low: np.ndarray
    worst_high: np.ndarray
    p_collapse: np.ndarray
    p_useful: np.ndarray


@dataclasses.dataclass(frozen=True)
class Part:
    """Predictor of one set of tiers.

    Attributes:
        tiers: Tiers that it needs.
        kind: Name of the law.
        strength: Setting of its regularisation.
        uses: Its features.
        law: The law with its numbers.
        rows: Errors of the retention of a language.
        merges: Errors of the least retention of a merge.
        useful: From the margin over the best single parent to the probability of being useful.
        domain: Where it knows its way.
        bends: Whether forecasts near the upper end are drawn towards what merges keep.
    """

    tiers: tuple[str, ...]
    kind: str
    strength: float
    uses: tuple[FeatureUse, ...]
    law: Fitted
    rows: Calibration
    merges: Calibration
    useful: Logistic | None
    domain: Domain
    bends: bool = False

    def predict(self, table: EvidenceTable) -> np.ndarray:
        """Retention of each row."""
        predicted = self.law.predict(table)
        return bent(predicted) if self.bends else predicted

    def effects(self, table: EvidenceTable) -> dict[str, np.ndarray]:
        """Feature (and "method") -> by how much it moves each row from the mean of known merges.

        What the upper end takes from the forecast it takes from every effect in proportion.
        """
        found = self.law.effects(table)
        if not self.bends or not found:
            return found
        total = np.sum(list(found.values()), axis=0)
        predicted = self.law.predict(table)
        moved = bent(predicted) - bent(predicted - total)
        rate = np.where(np.abs(total) > 1e-9, moved / np.where(total == 0, 1.0, total), 1.0)
        return {name: effect * rate for name, effect in found.items()}

    def forecast(
        self, table: EvidenceTable, known: EvidenceTable, *, of_method: bool = True
    ) -> Forecasts:
        """Foretell merges, those outside the domain too (their refusals say so).

        Args:
            table: Merges; outcomes are not looked at.
            known: The merges that it was fitted on.
            of_method: Whether a method that is not known is a reason to refuse.
        """
        predicted = self.predict(table)
        low, high = self.rows.interval(predicted)
        number, first = table.merges()
        worst = least_by_merge(predicted, number, len(first))
        ends = self.merges.interval(worst)
        margin = margin_of(table, predicted, number, len(first))
        useful = np.full(len(first), np.nan)
        if self.useful is not None:
            useful = self.useful.probability(margin)
        points = np.unique(self.domain.points(known), axis=0)
        return Forecasts(
            predicted, low, high,
            tuple(self.domain.refusals(table, points, of_method=of_method)), number, worst,
            *ends, self.merges.below(worst, COLLAPSE), useful,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "tiers": list(self.tiers),
            "kind": self.kind,
            "strength": self.strength,
            "uses": [dataclasses.asdict(use) for use in self.uses],
            "law": self.law.to_json(),
            "rows": self.rows.to_json(),
            "merges": self.merges.to_json(),
            "useful": dataclasses.asdict(self.useful) if self.useful else None,
            "domain": self.domain.to_json(),
            "bends": self.bends,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Part:
        """Read what `to_json` wrote."""
        return cls(
            tiers=tuple(document["tiers"]),
            kind=document["kind"],
            strength=document["strength"],
            uses=tuple(FeatureUse(**use) for use in document["uses"]),
            law=fitted_from_json(document["law"]),
            rows=Calibration.from_json(document["rows"]),
            merges=Calibration.from_json(document["merges"]),
            useful=Logistic(**document["useful"]) if document["useful"] else None,
            domain=Domain.from_json(document["domain"]),
            bends=document.get("bends", False),
        )


def fit_part(
    table: EvidenceTable,
    tiers: Sequence[str],
    *,
    kind: str,
    features: Sequence[str] = (),
    blocks: int = BLOCKS,
    seed: int = 0,
    strengths: Sequence[float] | None = None,
) -> Part:
    """Fit the predictor of one set of tiers.

    The law is fitted on all rows; its errors, and whether it promises too much near the upper end,
    are those of laws that knew no parent of the row.

    Args:
        table: Known merges.
        tiers: Tiers that may be used.
        kind: Name of the law.
        features: Features instead of the chosen ones.
        blocks: Blocks of models that are held out to learn errors.
        seed: Of the dealing of blocks.
        strengths: Settings of the law to choose from.

    Raises:
        InputError: There are too few models.
        UsageError: There is no such law, or no feature.

    Example:
        >>> from repsim.testing.evidence import planted_evidence
        >>> part = fit_part(planted_evidence(models=12), ("table",), kind="additive")
        >>> part.domain.levels
        ('linear|none', 'linear|permutation', 'ties|none')
    """
    law = MODELS[kind]
    uses = feature_uses(table, tiers, features)
    folds = leave_models_out(table, blocks=blocks, seed=seed, least=LEAST_INNER).folds
    found = cross_fit(law, table, uses, folds, strengths)
    fitted = law.prepare(table, uses).fit(np.arange(len(table)), found.strength)
    groups = np.array(table["parents"])
    bends = should_bend(found.predicted, outcome(table), groups)
    foretold = bent(found.predicted) if bends else found.predicted
    number, first = table.merges()
    worst = least_by_merge(foretold, number, len(first))
    observed = least_by_merge(outcome(table), number, len(first))
    _, which, count = np.unique(groups[first], return_inverse=True, return_counts=True)
    margin = margin_of(table, foretold, number, len(first))
    return Part(
        tiers=tuple(tiers),
        kind=kind,
        strength=found.strength,
        uses=uses,
        law=fitted,
        rows=calibrate(foretold, outcome(table), groups),
        merges=calibrate(worst, observed, groups[first]),
        useful=fit_logistic(margin, table["useful"][first], 1.0 / count[which]),
        domain=fit_domain(table, [use.name for use in uses]),
        bends=bends,
    )


def least_by_merge(values: np.ndarray, merge: np.ndarray, count: int) -> np.ndarray:
    """Least value of each merge; NaN if one of its rows is NaN.

    Example:
        >>> least_by_merge(np.array([0.5, 0.1, 0.9]), np.array([0, 0, 1]), 2).tolist()
        [0.1, 0.9]
    """
    known = np.isfinite(values)
    found = np.full(count, np.inf)
    np.minimum.at(found, merge[known], values[known])
    found[np.unique(merge[~known])] = np.nan
    return found


def margin_of(
    table: EvidenceTable, predicted: np.ndarray, merge: np.ndarray, count: int
) -> np.ndarray:
    """By how much the forecast of what a merge keeps exceeds what its best single parent keeps.

    A parent keeps all of its own language and, of another, the headroom of the worst parent there
    over that of the best, which is exact for two parents. Where headrooms were not measured, a
    parent is taken to keep nothing of the others' languages.
    """
    size = np.bincount(merge, minlength=count).astype(float)
    kept = np.bincount(merge, weights=np.maximum(predicted, 0.0), minlength=count) / size
    rest = np.zeros(len(table))
    if {"partner_headroom", "parent_headroom"} <= set(table.features):
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = table["partner_headroom"] / table["parent_headroom"]
        rest = np.where(np.isfinite(ratio), np.clip(ratio, 0.0, 1.0), 0.0)
    total = np.bincount(merge, weights=rest, minlength=count)
    best = (1.0 + total - least_by_merge(rest, merge, count)) / size
    return kept - best
