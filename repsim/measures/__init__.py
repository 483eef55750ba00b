"""Two `[n, d]` arrays in, a number out: similarity measures with shared factorisations.

Every measure is a decorated function that declares its rung, direction, range and invariances; the
contract kit (`repsim.testing.check_measure`) turns the declaration into tests.

Example:
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(40, 3))
    >>> round(measure(x, x @ np.diag([1, -1, 1]), "procrustes"), 6)
    0.0
"""

from __future__ import annotations

import importlib
from typing import Any

from repsim.measures.base import (
    MEASURES,
    MeasureWarning,
    compute_grid,
    get_measure,
    list_measures,
    measure,
    similarity_measure,
)
from repsim.measures.cautions import caution
from repsim.measures.features import Features, as_features

# Importing a family registers its measures.
for _family in (
    "cka", "relational", "procrustes", "linear", "correlation", "neighbours", "geometry",
    "whitened", "held_out", "matching", "imbalance", "topology", "outputs",
):  # fmt: skip
    importlib.import_module(f"repsim.measures.{_family}")

#: Public name -> module that holds it, imported on first use.
_LATER = {
    "FeatureCache": "repsim.measures.cells",
    "Statistics": "repsim.measures.statistics",
    "StreamingCKA": "repsim.measures.cka",
    "SweepUnit": "repsim.measures.plan",
    "assess": "repsim.measures.arrays",
    "between_models": "repsim.measures.arrays",
    "blocks": "repsim.measures.documents",
    "difference": "repsim.measures.arrays",
    "dissimilarities": "repsim.measures.rdm",
    "intrinsic_dimension": "repsim.measures.topology",
    "partial": "repsim.measures.cells",
    "plan_sweep": "repsim.measures.plan",
    "run_unit": "repsim.measures.sweeps",
    "run_units": "repsim.measures.sweeps",
    "sweep": "repsim.measures.sweeps",
    "sweep_info": "repsim.measures.sweeps",
    "unit_rows": "repsim.measures.cells",
    "with_q_values": "repsim.measures.discovery",
}

__all__ = [
    "MEASURES", "Features", "MeasureWarning", "as_features", "caution", "compute_grid",
    "get_measure", "list_measures", "measure", "similarity_measure", *_LATER,
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'repsim.measures' has no attribute '{name}'")
