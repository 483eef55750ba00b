"""Features of a group of parents in tiers, each usable alone."""

from repsim._lazy import lazily

#: Public name -> where it lives. Listing what there is needs no torch.
_PUBLIC = {
    "FEATURES": "repsim.mergeability.features.catalogue",
    "FeatureSpec": "repsim.mergeability.features.spec",
    "How": "repsim.mergeability.features.tiers",
    "OpenedParents": "repsim.mergeability.features.opened",
    "TIERS": "repsim.mergeability.features.tiers",
    "activation_features": "repsim.mergeability.features.activations",
    "gradient_features": "repsim.mergeability.features.gradients",
    "metadata_features": "repsim.mergeability.features.metadata",
    "oracle_features": "repsim.mergeability.features.oracle",
    "weight_features": "repsim.mergeability.features.weights",
}

__getattr__, __dir__, __all__ = lazily(__name__, _PUBLIC)
