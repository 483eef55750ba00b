"""Merging models: methods, recipes, static check, streaming execution, alignment."""

from __future__ import annotations

import importlib
from typing import Any

#: Public name -> where it lives. Listing what there is needs no torch.
_PUBLIC = {
    "METHODS": "repsim.merging.methods",
    "Finding": "repsim.merging.check",
    "MergeMethod": "repsim.merging.base",
    "Recipe": "repsim.merging.recipe",
    "Stream": "repsim.merging.arrays",
    "TensorContext": "repsim.merging.base",
    "check_models": "repsim.merging.check",
    "list_methods": "repsim.merging.methods",
    "merge": "repsim.merging.to_disk",
    "merge_method": "repsim.merging.base",
    "merge_state_dicts": "repsim.merging.in_memory",
    "parameter": "repsim.merging.base",
    "per_model": "repsim.merging.base",
    "read_recipe": "repsim.merging.reading",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'repsim.merging' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
