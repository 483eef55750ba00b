"""What a predictor must beat: one number at a time, and the mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse, direction_of
from repsim.mergeability.out_of_fold import OutOfFold
from repsim.mergeability.regressors import cross_fit, outcome
from repsim.mergeability.splits import Split

#: Single similarity measures, each where it says most in the source paper's sense: mid depth.
SIMILARITIES = (
    "unit_correlation_middle", "identity_match_middle", "permutation_middle", "cka_middle",
    "cka_partial_middle", "procrustes_middle", "svcca_middle", "mutual_knn_middle",
    "hidden_unit_correlation_middle", "hidden_cka_middle", "parallel_cka", "own_cka",
    "parallel_mutual_knn", "output_kl", "output_agreement",
)  # fmt: skip
#: Single numbers about weights.
WEIGHTS = (
    "weight_distance", "weight_cosine", "sign_agreement", "interference", "update_size",
    "origin_score", "quotient_distance_orthogonal", "distance_as_merged",
)  # fmt: skip
#: Baselines that read columns of the evidence, not features.
PROVENANCE = {"provenance bit": "shared_init", "fork fraction": "fork_fraction"}
MEAN, LOOKUP = "mean of outcomes", "lookup by origin and method"
#: Regressors that a predictor must beat on the same features: name for readers -> regressor.
RIVALS = {"5 nearest known merges": "neighbours", "boosted trees": "boosting",
          "ridge on splines": "ridge"}  # fmt: skip
#: Baselines that joined after results had been seen; the others were there before.
LATER = (*RIVALS, LOOKUP)


def baseline_uses(table: EvidenceTable) -> dict[str, FeatureUse]:
    """Baselines that a table allows: name -> the one feature."""
    named = [name for name in (*WEIGHTS, *SIMILARITIES) if name in table.features]
    singles = named or [name for name, tier in table.tiers.items() if tier == "table"]
    uses = {name: FeatureUse(name, 1) for name in PROVENANCE if name in table.features}
    uses |= {name: FeatureUse(name, direction_of(name)) for name in singles}
    return {name: use for name, use in uses.items() if _varies(table.features[use.name])}


def with_provenance(table: EvidenceTable) -> EvidenceTable:
    """Columns about provenance as features, so that baselines can use them."""
    more = {name: table[column].copy() for name, column in PROVENANCE.items()}
    kept = {name: values for name, values in more.items() if _varies(values)}
    return table.with_features(kept, dict.fromkeys(kept, "T0"))


def run_regressor(
    table: EvidenceTable, split: Split, regressor: str, uses: Sequence[FeatureUse]
) -> OutOfFold:
    """Forecast the test rows of a split by a regressor, without intervals."""
    return _without_intervals(table, cross_fit(regressor, table, uses, split.folds).predicted)


def _without_intervals(table: EvidenceTable, predicted: np.ndarray) -> OutOfFold:
    none, names = np.full(len(table), np.nan), ("",) * len(table)
    return OutOfFold(table, predicted, none, none, np.empty(0), np.empty(0), names, names)


def run_lookup(table: EvidenceTable, split: Split) -> OutOfFold:
    """Mean of known merges by origin and method; where the origin is new, by method alone."""
    y = outcome(table)
    origins = [" + ".join(sorted(found)) for found in table.histories]
    keys = [
        table.factor,
        np.array([f"{o}|{f}" for o, f in zip(origins, table.factor, strict=True)]),
    ]
    predicted = np.full(len(table), np.nan)
    for fold in split.folds:
        predicted[fold.test] = y[fold.train].mean()
        for key in keys:
            names, which = np.unique(key[fold.train], return_inverse=True)
            means = np.bincount(which, weights=y[fold.train]) / np.bincount(which)
            known = dict(zip(names, means, strict=True))
            mine = [row for row in fold.test if key[row] in known]
            predicted[mine] = [known[key[row]] for row in mine]
    return _without_intervals(table, predicted)


def run_baseline(table: EvidenceTable, split: Split, use: FeatureUse | None) -> OutOfFold:
    """Forecast from one feature and the method, along a monotone curve; None: the method's mean."""
    return run_regressor(table, split, "additive" if use else "mean", [use] if use else [])


def _varies(values: np.ndarray) -> bool:
    finite = values[np.isfinite(values)]
    return len(finite) >= len(values) / 4 and bool(len(finite)) and bool(np.ptp(finite) > 0)
