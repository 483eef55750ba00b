"""Activations of language models: forward hooks, pooling on the fly, a store on disk."""

from __future__ import annotations

import importlib
from typing import Any

#: Public name -> where it lives. torch is loaded when one of them is used.
_PUBLIC = {
    "ExtractionSettings": "repsim.activations.settings",
    "byte_aligned": "repsim.activations.byte_alignment",
    "extract": "repsim.activations.extraction",
    "extraction_key": "repsim.activations.settings",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'repsim.activations' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
