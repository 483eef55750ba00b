"""Laws that may tie features to retention: candidates, of which validation chooses."""

from __future__ import annotations

import importlib
from typing import Any

#: Public name -> where it lives.
_PUBLIC = {
    "MODELS": "repsim.mergeability.models.candidates",
    "Fitted": "repsim.mergeability.models.base",
    "Kind": "repsim.mergeability.models.base",
    "fitted_from_json": "repsim.mergeability.models.candidates",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'repsim.mergeability.models' has no attribute '{name}'")
