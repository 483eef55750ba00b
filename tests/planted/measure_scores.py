"""A table of benchmark scores with a planted order, for tests of rankings and their figure.

No number in it was measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from repsim.studies.measure_benchmark.table import MeasureScores

#: Measure -> label, rung, cost, planted share that is right.
PLANTED: Mapping[str, tuple[str, str, str, float]] = {
    "cka": ("CKA", "L2", "cheap", 0.95),
    "procrustes": ("Procrustes", "L2", "expensive", 0.95),
    "unit_correlation": ("Unit-wise correlation", "L0", "cheap", 0.8),
    "imd": ("IMD", "", "expensive", 0.5),
}


def synthetic_scores(
    tests: tuple[str, ...] = ("layers", "noise"),
    *,
    units: int = 6,
    planted: Mapping[str, tuple[str, str, str, float]] = PLANTED,
) -> MeasureScores:
    """Scores that scatter by 0.04 around what is planted, the same way for every measure."""
    rows = []
    trials = itertools.product(tests, range(units), range(1, 4))
    for (test, unit, layer), name in itertools.product(trials, planted):
        label, rung, cost, right = planted[name]
        rows.append(
            {
                "measure": name, "label": label, "rung": rung, "cost": cost, "test": test,
                "source": "planted", "unit": f"m{unit}", "language": "eng_Latn", "layer": layer,
                "correct": right + (0.04 if (unit + layer) % 2 else -0.04), "comparisons": 10,
            }
        )  # fmt: skip
    return MeasureScores(rows)
