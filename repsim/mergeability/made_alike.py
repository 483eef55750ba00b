"""How far merges differ that were made alike: what the way they were made leaves open."""

from __future__ import annotations

import numpy as np

from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import STATED, feature_uses
from repsim.mergeability.regressors import outcome

#: Digits to which what parents state must agree.
DIGITS = 2
_COLUMNS = ("source", "arm", "control", "method", "alignment", "parameters")


def spread_of_alike(table: EvidenceTable) -> tuple[float | None, int]:
    """Mean absolute difference of a merge from the mean of merges of other parents made alike.

    Alike: of one study, by one method with the same parameters, of parents that state the same
    shares and budgets of training. Study and initialisation may be shared, so that it is no
    forecast of strangers: it is the error of one who knows everything but the parents.

    Returns:
        The difference, None if no two merges are alike, and of how many rows.
    """
    if "T0" not in table.tiers.values():
        return None, 0
    stated = [use.name for use in feature_uses(table, ("T0", *STATED))]
    keys = [table[name].astype(str) for name in _COLUMNS]
    keys += [np.round(table[name], DIGITS).astype(str) for name in stated]
    _, cell = np.unique(np.stack(keys, axis=1), axis=0, return_inverse=True)
    _, group = np.unique(table["parents"].astype(str), return_inverse=True)
    y = outcome(table)
    count, total = np.bincount(cell), np.bincount(cell, weights=y)
    # Of a cell without the rows of the same parents.
    _, own = np.unique(np.stack([cell.ravel(), group.ravel()], axis=1), axis=0, return_inverse=True)
    own = own.ravel()
    others = count[cell] - np.bincount(own)[own]
    rest = total[cell] - np.bincount(own, weights=y)[own]
    known = others > 0
    if not known.any():
        return None, 0
    return float(np.abs(y[known] - rest[known] / others[known]).mean()), int(known.sum())
