"""Controls: merges whose outcome theory tells beforehand, and what the predictor makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.mergeability.out_of_fold import OutOfFold
from repsim.mergeability.part import least_by_merge
from repsim.mergeability.regressors import outcome

LIVES, COLLAPSES, OPEN, REFUSED = "lives", "collapses", "open", "refused"


def known_answer(control: str, alignment: str) -> str:
    """What becomes of a control, by what it is."""
    undone = {"permuted": ("permutation", "orthogonal"), "rotated": ("orthogonal",)}
    if control in ("self", "adjacent"):
        return LIVES
    if control in undone:
        return LIVES if alignment in undone[control] else COLLAPSES
    return OPEN


def control_rows(tested: OutOfFold, split: str) -> Iterator[dict[str, Any]]:
    """Rows of a `ControlTable` for the controls that were tested in a split."""
    table = tested.table
    number, first = table.merges()
    worst = least_by_merge(tested.predicted, number, len(first))
    observed = least_by_merge(outcome(table), number, len(first))
    p_collapse = -least_by_merge(-tested.p_collapse, number, len(first))
    refused = np.zeros(len(first), dtype=bool)
    np.logical_or.at(refused, number, tested.refused)
    for merge, row in enumerate(first):
        control = str(table["control"][row])
        if not control or not np.isfinite(worst[merge]):
            continue
        came = COLLAPSES if observed[merge] < COLLAPSE else LIVES
        said = COLLAPSES if p_collapse[merge] > 0.5 else LIVES
        method, alignment = str(table["method"][row]), str(table["alignment"][row])
        yield {
            "split": split, "control": control, "merge": str(table["merge"][row]),
            "method": method, "alignment": alignment,
            "answer": known_answer(control, alignment), "came": came,
            "predicted_outcome": REFUSED if refused[merge] else said,
            "p_collapse": float(p_collapse[merge]), "predicted": float(worst[merge]),
            "observed": float(observed[merge]),
            "right": None if refused[merge] else int(said == came),
        }  # fmt: skip
