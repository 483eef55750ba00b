"""Features of parents as figures need them: one value per group and per part of the depth."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from repsim.core.atlas import Atlas, join_parents
from repsim.core.errors import UsageError
from repsim.plots.study.outcomes import PLAIN, Outcome, outcomes_of

#: Parts of the depth, in order.
SECTIONS = ("embed", "early", "middle", "late")
#: Measures on activations: name in the atlas -> rung and label.
LADDER: dict[str, tuple[str, str]] = {
    "unit_correlation": ("L0", "unit-wise correlation"),
    "identity_match": ("L0", "units matched with themselves"),
    "permutation": ("L1", "permutation Procrustes"),
    "cka": ("L2", "debiased CKA"),
    "procrustes": ("L2", "angular Procrustes"),
    "svcca": ("L3", "SVCCA"),
    "mutual_knn": ("L4", "mutual k-NN"),
    "hidden_unit_correlation": ("L0", "correlation of MLP units"),
}
RUNGS: dict[str, str] = {
    "L0": "identity",
    "L1": "permutation",
    "L2": "rotation",
    "L3": "linear",
    "L4": "local",
}
#: Features of weights that figures draw retention against.
WEIGHTS: dict[str, str] = {
    "weight_distance": "relative distance of the parents' weights",
    "update_size": "update size, mean over parents",
    "weight_cosine": "weight cosine",
    "interference": "interference of updates",
}
CALIBRATED = "similarity, calibrated (0 chance, 1 identical)"


@dataclasses.dataclass(frozen=True)
class Measured:
    """One pair of parents, what its plain mean kept, and its similarities."""

    outcome: Outcome
    values: dict[str, float]


def measured_pairs(atlas: Atlas, *needed: str) -> list[Measured]:
    """Pairs whose plain mean was evaluated and whose features were measured; controls apart."""
    known = feature_means(atlas)
    found = []
    for outcome in outcomes_of(atlas):
        if outcome.recipe != PLAIN or outcome.k != 2 or outcome.control:
            continue
        values = known.get(join_parents(outcome.parents), {})
        if values and all(math.isfinite(values.get(name, math.nan)) for name in needed):
            found.append(Measured(outcome, values))
    if not found:
        raise UsageError(
            "no pair of parents of the atlas has both an outcome and "
            + (f"the features {', '.join(needed)}" if needed else "features")
        )
    return found


def feature_means(atlas: Atlas) -> dict[str, dict[str, float]]:
    """Parents -> feature -> mean over the languages in which it was measured."""
    heaps: dict[str, dict[str, list[float]]] = {}
    for row in atlas.features.rows():
        if row["value"] is not None:
            heaps.setdefault(row["parents"], {}).setdefault(row["feature"], []).append(row["value"])
    return {
        parents: {name: float(np.mean(values)) for name, values in features.items()}
        for parents, features in heaps.items()
    }
