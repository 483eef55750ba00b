"""The predictor of one set of tiers: a regressor, its errors, and its applicability domain."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.mergeability.candidate import LEAST_RISK, MOST_RISK, Doubt
from repsim.mergeability.domain import Domain, fit_domain, nearest_distance
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse, feature_choices
from repsim.mergeability.reasons import label_of
from repsim.mergeability.regressors import FittedRegressor, chosen_fit, outcome
from repsim.mergeability.splits import LEAST_INNER, leave_models_out
from repsim.mergeability.verdict import fate
from repsim.stats.conformal import (
    Calibration,
    Logistic,
    calibrate,
    fit_logistic,
    should_shrink,
    shrunk,
)

#: Standard deviation of a feature's effect on known merges from which it must not be missing.
LEAST_SWAY = 0.02
#: Blocks of models that are held out when errors are learnt.
BLOCKS = 5
#: The feature that retention is divided by: errors of it grow where it is small.
HEADROOM = "parent_headroom"
#: Largest share of known merges, at a probability at which a smaller set of tiers states a fate, of
#: which a fuller one states the opposite; the fate of the others is said to be open.
MOST_DENIED = 0.1


@dataclasses.dataclass(frozen=True)
class Forecasts:
    """Forecasts of the rows of a table, and of its merges."""

    predicted: np.ndarray
    low: np.ndarray  # of the 90 % interval
    high: np.ndarray
    refusals: tuple[str, ...]  # by row; empty where it can be said
    merge: np.ndarray  # number of the merge of each row; what follows is by merge
    worst: np.ndarray  # least retention
    worst_low: np.ndarray
    worst_high: np.ndarray
    p_collapse: np.ndarray
    p_useful: np.ndarray
    doubts: tuple[Doubt, ...]

    @property
    def fates(self) -> np.ndarray:
        """What is said of each merge."""
        pairs = zip(self.p_collapse, self.doubts, strict=True)
        return np.array([fate(float(chance), doubt) for chance, doubt in pairs], dtype=object)


@dataclasses.dataclass(frozen=True)
class Part:
    """Predictor of one set of tiers."""

    tiers: tuple[str, ...]
    kind: str
    alpha: float
    uses: tuple[FeatureUse, ...]
    regressor: FittedRegressor
    rows: Calibration
    merges: Calibration
    useful: Logistic | None
    domain: Domain
    shrinks: bool = False
    #: Of merges as they are, and of aligned ones; usual where nothing fuller is known.
    doubts: tuple[Doubt, Doubt] = (Doubt(), Doubt())

    def predict(self, table: EvidenceTable) -> np.ndarray:
        """Retention of each row."""
        predicted = self.regressor.predict(table)
        return shrunk(predicted) if self.shrinks else predicted

    def effects(self, table: EvidenceTable) -> dict[str, np.ndarray]:
        """Feature (and "method") -> by how much it moves each row from the mean of known merges."""
        found = self.regressor.effects(table)
        if not self.shrinks:
            return found
        total = np.sum(list(found.values()), axis=0)
        predicted = self.regressor.predict(table)
        moved = shrunk(predicted) - shrunk(predicted - total)
        rate = np.where(np.abs(total) > 1e-9, moved / np.where(total == 0, 1.0, total), 1.0)
        return {name: effect * rate for name, effect in found.items()}

    def forecast(
        self, table: EvidenceTable, known: EvidenceTable, *, of_method: bool = True
    ) -> Forecasts:
        """Forecast merges, those outside the domain too; `of_method`: an unknown method refuses."""
        predicted = self.predict(table)
        points = np.unique(self.domain.points(known), axis=0)
        distance = nearest_distance(self.domain.points(table), points)
        hard = _hard(table, self.uses, distance, self.domain)
        low, high = self.rows.interval(predicted, hard)
        number, first = table.merges()
        worst = least_by_merge(predicted, number, len(first))
        hardest = _hardest(hard, number, len(first))
        ends = self.merges.interval(worst, hardest)
        margin = margin_of(table, predicted, number, len(first))
        useful = np.full(len(first), np.nan)
        if self.useful is not None:
            useful = self.useful.probability(margin)
        outside = self.domain.refusals(table, distance, of_method=of_method)
        refusals = [a or b for a, b in zip(outside, self._unmeasured(table, known), strict=True)]
        return Forecasts(
            predicted, low, high, tuple(refusals), number, worst,
            *ends, self.merges.below(worst, COLLAPSE, hardest), useful,
            tuple(self.doubts[int(way != "none")] for way in table["alignment"][first]),
        )  # fmt: skip

    def _unmeasured(self, table: EvidenceTable, known: EvidenceTable) -> list[str]:
        """Why a row is refused of which something that matters, and is no T0, was not measured."""
        measured = [
            use.name for use in self.uses
            if use.name in self.domain.usual and known.tiers.get(use.name) not in (None, "T0")
        ]  # fmt: skip
        none = np.full(len(table), np.nan)
        values = np.array([table.features.get(name, none) for name in measured])
        missing = ~np.isfinite(values).reshape(len(measured), len(table))
        said = [""] * len(table)
        if not missing.any():
            return said
        effects = self.effects(known)
        sway = np.array([np.std(effects.get(name, np.zeros(1))) for name in measured])
        for row in np.flatnonzero(missing.any(axis=0)):
            most = int(np.argmax(np.where(missing[:, row], sway, -1.0)))
            if sway[most] >= LEAST_SWAY:
                said[row] = (
                    f"{label_of(measured[most])} could not be measured in {table['language'][row]}"
                    f", and forecasts of known merges move by {sway[most]:.2f} with it"
                )
        return said

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "tiers": list(self.tiers),
            "kind": self.kind,
            "alpha": self.alpha,
            "uses": [dataclasses.asdict(use) for use in self.uses],
            "regressor": self.regressor.to_json(),
            "rows": self.rows.to_json(),
            "merges": self.merges.to_json(),
            "useful": dataclasses.asdict(self.useful) if self.useful else None,
            "domain": self.domain.to_json(),
            "shrinks": self.shrinks,
            "doubts": [dataclasses.asdict(doubt) for doubt in self.doubts],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Part:
        """Read what `to_json` wrote."""
        return cls(
            tiers=tuple(document["tiers"]),
            kind=document["kind"],
            alpha=document["alpha"],
            uses=tuple(FeatureUse(**use) for use in document["uses"]),
            regressor=FittedRegressor.from_json(document["kind"], document["regressor"]),
            rows=Calibration.from_json(document["rows"]),
            merges=Calibration.from_json(document["merges"]),
            useful=Logistic(**document["useful"]) if document["useful"] else None,
            domain=Domain.from_json(document["domain"]),
            shrinks=document["shrinks"],
            doubts=(Doubt(**document["doubts"][0]), Doubt(**document["doubts"][1])),
        )


def fit_part(
    table: EvidenceTable,
    tiers: Sequence[str],
    *,
    kind: str,
    features: Sequence[str] = (),
    blocks: int = BLOCKS,
    seed: int = 0,
) -> tuple[Part, np.ndarray]:
    """Fit on all rows, errors out of fold; beside it the probability of each merge to collapse."""
    folds = leave_models_out(table, blocks=blocks, seed=seed, least=LEAST_INNER).folds
    choices = feature_choices(table, tiers, features)
    found = chosen_fit(kind, table, choices, folds)
    groups = np.array(table["parents"])
    origins = np.array([" + ".join(sorted(found)) for found in table.histories])
    shrinks = should_shrink(found.predicted, outcome(table), groups)
    predicted = shrunk(found.predicted) if shrinks else found.predicted
    # The domain is that of all that was measured: few features make strangers look alike.
    domain = fit_domain(table, [use.name for use in choices[0]])
    points, distance = domain.points(table), np.full(len(table), np.nan)
    for fold in folds:
        distance[fold.test] = nearest_distance(points[fold.test], points[fold.train])
    number, first = table.merges()
    worst = least_by_merge(predicted, number, len(first))
    hard = _hard(table, found.uses, distance, domain)
    hardest = _hardest(hard, number, len(first))
    observed = least_by_merge(outcome(table), number, len(first))
    _, which, count = np.unique(groups[first], return_inverse=True, return_counts=True)
    margin = margin_of(table, predicted, number, len(first))
    part = Part(
        tiers=tuple(tiers),
        kind=found.regressor,
        alpha=found.setting["alpha"],
        uses=found.uses,
        regressor=FittedRegressor.fit(found.regressor, table, found.uses, found.setting),
        rows=calibrate(predicted, outcome(table), groups, origins, hard),
        merges=calibrate(worst, observed, groups[first], origins[first], hardest),
        useful=fit_logistic(margin, table["useful"][first], 1.0 / count[which]),
        domain=domain,
        shrinks=shrinks,
    )
    return part, part.merges.below(worst, COLLAPSE, hardest)


def _hard(
    table: EvidenceTable, uses: Sequence[FeatureUse], distance: np.ndarray, domain: Domain
) -> np.ndarray:
    """What makes rows hard to forecast: little headroom to divide by, and no known merge nearby."""
    found = [np.maximum(distance, domain.typical)]
    if any(use.name == HEADROOM for use in uses):
        headroom = table.features.get(HEADROOM, np.full(len(table), np.nan))
        found.append(1.0 / np.where(headroom > 0, headroom, np.nan))
    return np.stack(found, axis=1)


def _hardest(hard: np.ndarray, merge: np.ndarray, count: int) -> np.ndarray:
    """The same of the hardest row of each merge."""
    return -np.stack([least_by_merge(-thing, merge, count) for thing in hard.T], axis=1)


def doubts_beside(
    table: EvidenceTable, mine: np.ndarray, theirs: np.ndarray, tier: str
) -> tuple[Doubt, Doubt]:
    """Where a probability leaves fates open, lest that of all up to `tier` says the opposite."""
    _, first = table.merges()
    _, which, count = np.unique(table["parents"][first], return_inverse=True, return_counts=True)
    aligned = table["alignment"][first] != "none"
    known = np.isfinite(mine) & np.isfinite(theirs)
    as_is, after = (
        _doubt(mine[rows], theirs[rows], 1.0 / count[which[rows]], tier)
        for rows in (known & ~aligned, known & aligned)
    )
    return as_is, after


def _doubt(mine: np.ndarray, theirs: np.ndarray, weight: np.ndarray, tier: str) -> Doubt:
    """The narrowest bounds at which, and not only beyond which, few forecasts are denied."""
    from sklearn.isotonic import IsotonicRegression

    def bound(grid: np.ndarray, denied: np.ndarray, *, rises: bool, last: float) -> float:
        curve = IsotonicRegression(increasing=rises, out_of_bounds="clip")
        rate = curve.fit(mine, denied, sample_weight=weight).predict(grid)
        return float(
            next((at for at, of in zip(grid, rate, strict=True) if of <= MOST_DENIED), last)
        )

    low = bound(np.linspace(MOST_RISK, 0, 41), theirs >= LEAST_RISK, rises=True, last=0.0)
    high = bound(np.linspace(LEAST_RISK, 1, 101), theirs <= MOST_RISK, rises=False, last=1.0)
    return Doubt(round(low, 3), round(high, 3), tier)


def least_by_merge(values: np.ndarray, merge: np.ndarray, count: int) -> np.ndarray:
    """Least value of each merge; NaN if one of its rows is NaN."""
    known = np.isfinite(values)
    found = np.full(count, np.inf)
    np.minimum.at(found, merge[known], values[known])
    found[np.unique(merge[~known])] = np.nan
    return found


def margin_of(
    table: EvidenceTable, predicted: np.ndarray, merge: np.ndarray, count: int
) -> np.ndarray:
    """By how much the forecast of what a merge keeps exceeds what its best single parent keeps."""
    # A parent keeps all of its own language and, of another, the headroom of the worst parent there
    # over that of the best (exact for two parents); nothing where headrooms were not measured.
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
