"""Features of a group of parents in tiers, each usable alone."""

from __future__ import annotations

import importlib
from typing import Any

#: Public name -> where it lives. Listing what there is needs no torch.
_PUBLIC = {
    "FEATURES": "repsim.mergeability.features.catalogue",
    "FeatureSpec": "repsim.mergeability.features.spec",
    "FeatureValue": "repsim.mergeability.features.spec",
    "How": "repsim.mergeability.features.tiers",
    "OpenedParents": "repsim.mergeability.features.opened",
    "TIERS": "repsim.mergeability.features.tiers",
    "Tier": "repsim.mergeability.features.tiers",
    "TierResult": "repsim.mergeability.features.spec",
    "activation_features": "repsim.mergeability.features.activations",
    "gradient_features": "repsim.mergeability.features.gradients",
    "metadata_features": "repsim.mergeability.features.metadata",
    "oracle_features": "repsim.mergeability.features.oracle",
    "weight_features": "repsim.mergeability.features.weights",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'repsim.mergeability.features' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
