"""Evidence with a planted relation, for tests of predictors: how much is known is known."""

from __future__ import annotations

import itertools

import numpy as np

from repsim.mergeability.evidence import EvidenceTable


def planted_evidence(
    *, models: int = 24, noise: float = 0.06, model_effect: float = 0.04, seed: int = 0,
    before: str = "", **columns: str,
) -> EvidenceTable:  # fmt: skip
    """Pairs of models merged in three ways, whose retention falls with `distance`.

    `before` precedes the names of models; further columns are the same in all rows.
    """
    rng = np.random.default_rng(seed)
    names = [f"{before}model-{number:02d}" for number in range(models)]
    own = rng.normal(0, model_effect, models)
    place = rng.uniform(0, 1, models)
    rows, values = [], []
    for a, b in itertools.combinations(range(models), 2):
        shared = float(a % 2 == b % 2 == 0)
        distance = 0.1 + abs(place[a] - place[b]) if shared else 1.2 + 0.2 * rng.uniform()
        quotient = distance * (1.0 if shared else rng.choice([0.3, 0.9]))
        parents = f"{names[a]} + {names[b]}"
        for method, alignment in (("linear", "none"), ("ties", "none"), ("linear", "permutation")):
            effective = distance if alignment == "none" else quotient
            kept = 1.0 - 1.4 / (1 + np.exp(-6 * (effective - 0.7)))
            kept += own[a] + own[b] - 0.1 * (method == "ties")
            for language in ("eng", "deu"):
                found = kept + rng.normal(0, noise)
                rows.append({
                    "merge": f"{parents} | {method} | {alignment}", "parents": parents,
                    "method": method, "alignment": alignment, "language": language,
                    "arm": "AEB"[(a + b) % 2 if shared else 2], "shared_init": shared,
                    "fork_fraction": round(place[a], 1) if shared else 0.0, "source": "planted",
                    "retention": found, "advantage": found - 0.6, "useful": float(found > 0.6),
                    **columns,
                })  # fmt: skip
                values.append((distance, quotient, shared, rng.normal()))
    distance, quotient, provenance, no_use = np.array(values).T
    features = {
        "distance": distance, "quotient": quotient, "cosine": 1 - distance / 1.4,
        "provenance": provenance, "noise_feature": no_use,
    }  # fmt: skip
    return EvidenceTable.from_rows(rows, features, dict.fromkeys(features, "table"))
