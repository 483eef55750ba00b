"""Merging models: methods, recipes, static check, streaming execution, alignment."""

from __future__ import annotations

import importlib
from typing import Any

#: Public name -> where it lives. Listing what there is needs no torch.
_PUBLIC = {
    "METHODS": "repsim.merging.methods",
    "Gram": "repsim.merging.base",
    "Finding": "repsim.merging.check",
    "MergeMethod": "repsim.merging.base",
    "Recipe": "repsim.merging.recipe",
    "Stream": "repsim.merging.arrays",
    "TensorContext": "repsim.merging.base",
    "check_models": "repsim.merging.check",
    "collect_fisher": "repsim.merging.statistics",
    "collect_gram": "repsim.merging.statistics",
    "list_methods": "repsim.merging.methods",
    "load_statistics": "repsim.merging.statistics",
    "merge": "repsim.merging.to_disk",
    "merge_method": "repsim.merging.base",
    "merge_state_dicts": "repsim.merging.in_memory",
    "parameter": "repsim.merging.parameters",
    "per_model": "repsim.merging.parameters",
    "save_statistics": "repsim.merging.statistics",
    "read_recipe": "repsim.merging.reading",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'repsim.merging' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
