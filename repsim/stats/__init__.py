"""Statistics that know no model: ranks and scores, the bootstrap over models."""

from repsim.stats.bootstrap import Estimate, estimate, share
from repsim.stats.ranks import auroc, calibration_error, partial_spearman, spearman

__all__ = [
    "Estimate", "auroc", "calibration_error", "estimate", "partial_spearman", "share", "spearman",
]  # fmt: skip
