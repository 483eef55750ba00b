"""Forecasts of known merges by laws that know none of their parents."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from repsim.core.errors import InputError
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse
from repsim.mergeability.models.base import Kind, outcome
from repsim.mergeability.splits import Fold


@dataclasses.dataclass(frozen=True)
class CrossFit:
    """Forecasts out of fold.

    Attributes:
        strength: Setting of the law with the least squared error.
        predicted: Forecast of each row; NaN for rows that no fold tests.
        error: Mean squared error by setting.
    """

    strength: float
    predicted: np.ndarray
    error: dict[float, float]


def cross_fit(
    kind: Kind,
    table: EvidenceTable,
    uses: Sequence[FeatureUse],
    folds: Sequence[Fold],
    strengths: Sequence[float] | None = None,
) -> CrossFit:
    """Fit on the training rows of every fold, forecast its test rows, keep the best setting.

    Columns are laid out on the whole table, so that bends of curves and means know the features of
    test rows, never their outcomes.

    Args:
        kind: The law.
        table: Evidence.
        uses: Features.
        folds: Folds; see `repsim.mergeability.splits`.
        strengths: Settings to choose from; those of the law if None.

    Raises:
        InputError: No fold tests anything.

    Example:
        >>> from repsim.mergeability.models import MODELS
        >>> from repsim.mergeability.splits import leave_models_out
        >>> from repsim.testing.evidence import planted_evidence
        >>> table = planted_evidence(models=12)
        >>> found = cross_fit(MODELS["ridge"], table, [FeatureUse("distance", -1)],
        ...                   leave_models_out(table, blocks=4, least=8).folds)
        >>> len(found.predicted) == len(table)
        True
    """
    if not folds:
        raise InputError("there is no way to hold models out: too few merges of other models")
    prepared = kind.prepare(table, uses)
    target = outcome(table)
    settings = list(strengths if strengths is not None else kind.strengths)
    found = {}
    for strength in settings:
        predicted = np.full(len(table), np.nan)
        for fold in folds:
            law = prepared.fit(fold.train, strength)
            predicted[fold.test] = prepared.predict(law, fold.test)
        found[strength] = predicted
    error = {s: float(np.nanmean((p - target) ** 2)) for s, p in found.items()}
    best = min(settings, key=lambda s: error[s])
    return CrossFit(best, found[best], error)
