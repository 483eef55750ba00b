"""Two `[n, d]` arrays in, a number out: similarity measures with shared factorisations.

Every measure is a decorated function that declares its rung, direction, range and invariances; the
contract kit (`repsim.testing.check_measure`) turns the declaration into tests.

Example:
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(40, 3))
    >>> round(compute("procrustes", x, x @ np.diag([1, -1, 1])), 6)
    0.0
"""

from __future__ import annotations

import importlib
from typing import Any

from repsim.measures.base import (
    ALIASES,
    MEASURES,
    MeasureWarning,
    caution,
    compute,
    compute_grid,
    get_measure,
    list_measures,
    measure,
)
from repsim.measures.features import Features, as_features

# Importing a family registers its measures.
for _family in (
    "cka", "minibatch", "rbf", "procrustes", "cca", "regression", "correlation", "rsa", "distance",
    "neighbours", "neighbour_order", "geometry",
):  # fmt: skip
    importlib.import_module(f"repsim.measures.{_family}")

#: Public name -> module that holds it, imported on first use.
_LATER = {
    "FeatureCache": "repsim.measures.sweep_run",
    "Statistics": "repsim.measures.sweep_plan",
    "StreamingCKA": "repsim.measures.minibatch",
    "SweepRequest": "repsim.measures.sweep_parallel",
    "SweepUnit": "repsim.measures.sweep_plan",
    "is_dear": "repsim.measures.cells",
    "partial": "repsim.measures.confounds",
    "plan_sweep": "repsim.measures.sweep_plan",
    "run_unit": "repsim.measures.sweep_run",
    "run_units": "repsim.measures.sweep_parallel",
    "sweep": "repsim.measures.sweep_run",
    "sweep_info": "repsim.measures.sweep_run",
    "unit_rows": "repsim.measures.sweep_run",
    "units_of": "repsim.measures.sweep_parallel",
}

__all__ = [
    "ALIASES", "MEASURES", "Features", "MeasureWarning", "as_features", "caution", "compute",
    "compute_grid", "get_measure", "list_measures", "measure", *_LATER,
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'repsim.measures' has no attribute '{name}'")
