"""Model families, loading, and models that come in packages."""

from __future__ import annotations

import importlib
from typing import Any

#: Public name -> where it lives. Loading a model needs torch, listing what there is does not.
_PUBLIC = {
    "ARCHITECTURES": "repsim.models.arch",
    "ArchSpec": "repsim.models.arch",
    "CausalModel": "repsim.models.causal",
    "HookPoint": "repsim.models.arch",
    "LoadedModel": "repsim.models.load",
    "POINTS": "repsim.models.arch",
    "check_model": "repsim.models.check",
    "fetch_model": "repsim.models.packages",
    "inspect_model": "repsim.models.inspect",
    "list_models": "repsim.models.packages",
    "list_zoo": "repsim.models.zoo",
    "load_causal_lm": "repsim.models.causal",
    "load_model": "repsim.models.load",
    "read_activation": "repsim.models.arch",
    "spec_for": "repsim.models.arch",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'repsim.models' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
