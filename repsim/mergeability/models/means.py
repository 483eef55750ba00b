"""The least that a law must beat: the mean outcome of each method and alignment."""

from __future__ import annotations

from collections.abc import Sequence

from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse
from repsim.mergeability.models.linear import LinearKind, Prepared


class _MeanKind(LinearKind):
    """A linear law without features."""

    def prepare(self, table: EvidenceTable, uses: Sequence[FeatureUse]) -> Prepared:
        """Lay out the factors alone."""
        return super().prepare(table, ())


MEAN = _MeanKind(
    "mean", "mean of method and alignment", (0.0, 1.0), monotone=False, strengths=(1e-3,)
)
