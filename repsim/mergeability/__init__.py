"""Forecasting merges: features of the parents, known outcomes, the predictor, its validation."""

from __future__ import annotations

import importlib
from typing import Any

#: Public name -> where it lives. Importing the package needs nothing heavy.
_PUBLIC = {
    "EvidenceTable": "repsim.mergeability.evidence",
    "Predictor": "repsim.mergeability.predictor",
    "ValidationReport": "repsim.mergeability.validation",
    "read_evidence": "repsim.mergeability.evidence_files",
    "shipped_predictor": "repsim.mergeability.predictor",
    "examine_hypotheses": "repsim.mergeability.hypotheses",
    "validate": "repsim.mergeability.validation",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'repsim.mergeability' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
