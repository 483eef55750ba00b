"""Somebody's table of outcomes with a planted relation, for tests of its validation."""

from __future__ import annotations

import itertools

import numpy as np

from repsim.core.outcome_table import OutcomeTable


def planted_outcomes(
    *, models: int = 10, methods: tuple[str, ...] = ("mean", "ties"), noise: float = 0.02,
    model_effect: float = 0.0, seed: int = 0,
) -> OutcomeTable:  # fmt: skip
    """Pairs of models whose outcome rises with `cosine`, and with what each model adds."""
    rng = np.random.default_rng(seed)
    own = rng.normal(0, model_effect, models)
    rows = []
    for a, b in itertools.combinations(range(models), 2):
        cosine, chance = rng.uniform(), rng.normal()
        for number, method in enumerate(methods):
            kept = 0.3 + 0.5 * cosine - 0.1 * number + own[a] + own[b] + rng.normal(0, noise)
            rows.append({
                "parents": f"m{a:02d} + m{b:02d}", "method": method, "source": "planted",
                "language": "", "score": kept, "outcome": kept,
                "feature:cosine": cosine, "feature:chance": chance,
            })  # fmt: skip
    return OutcomeTable(rows)
