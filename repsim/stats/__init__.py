"""Statistics that know no model: ranks and scores, the bootstrap over models."""

from repsim.stats.bootstrap import (
    Estimate,
    auroc_estimate,
    bootstrap,
    estimate,
    interval_of,
    members_of,
    model_weights,
    share,
    spearman_estimate,
    weighted_mean,
    weighted_median,
)
from repsim.stats.ranks import auroc, calibration_error, partial_spearman, spearman

__all__ = [
    "Estimate", "auroc", "auroc_estimate", "bootstrap", "calibration_error", "estimate",
    "interval_of", "members_of", "model_weights", "partial_spearman", "share", "spearman",
    "spearman_estimate", "weighted_mean", "weighted_median",
]  # fmt: skip
