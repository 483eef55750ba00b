"""What a pair's layer x layer grid comes down to: best cell, middle, matched diagonal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]

#: Fields of a summary that come from the best cell, and from that of the middle layers -> column.
_BEST = {
    "best": "value", "best_layer_a": "layer_a", "best_layer_b": "layer_b",
    "best_p_adjusted": "p_adjusted", "best_q_value": "q_value",
}  # fmt: skip
_MIDDLE = {
    "middle": "value", "middle_ci_low": "ci_low", "middle_ci_high": "ci_high",
    "middle_null_q95": "null_q95", "middle_partial": "partial",
    "middle_partial_ci_low": "partial_ci_low", "middle_partial_ci_high": "partial_ci_high",
    "middle_ceiling": "ceiling", "middle_across_halves": "across_halves", "middle_note": "note",
}  # fmt: skip
#: Fields of a pair's summary, besides `n`.
SUMMARY_FIELDS = (*_BEST, "matched_mean", *_MIDDLE)


def summarise_pair(rows: Sequence[Row], direction: str) -> Row:
    """Summary of the rows of one pair of (model, language) and one measure."""
    valued = [row for row in rows if row["value"] is not None]
    if not valued:
        return dict.fromkeys(SUMMARY_FIELDS) | {"n": rows[0]["n"] if rows else 0}
    pick = max if direction == "similarity" else min
    best = pick(valued, key=lambda row: row["value"])
    matched = matched_cells(valued)
    middle = matched[len(matched) // 2]
    return {
        "n": best["n"],
        **{field: best[column] for field, column in _BEST.items()},
        "matched_mean": float(np.mean([row["value"] for row in matched])),
        **{field: middle[column] for field, column in _MIDDLE.items()},
    }


def matched_cells(rows: Sequence[Row]) -> list[Row]:
    """For each layer of the shallower side, the cell nearest in relative depth, in order."""
    depth_a = max(row["layer_a"] for row in rows) or 1
    depth_b = max(row["layer_b"] for row in rows) or 1
    side = "layer_a" if depth_a <= depth_b else "layer_b"
    nearest: dict[int, Row] = {}
    for row in rows:
        gap = abs(row["layer_a"] / depth_a - row["layer_b"] / depth_b)
        known = nearest.get(row[side])
        if known is None or gap < abs(known["layer_a"] / depth_a - known["layer_b"] / depth_b):
            nearest[row[side]] = row
    return [nearest[layer] for layer in sorted(nearest)]


#: What stands beside a value -> its column in a summary.
_BESIDE = {"null": "middle_null_q95", "interval": "middle_ci_low"}


def not_computed(rows: Iterable[Row], labels: dict[str, str], shuffles: int | None) -> list[str]:
    """Why middle layers lack an interval or a null, one statement per measure and reason."""
    found: dict[tuple[str, str, str], int] = {}
    for row in rows if shuffles != 0 else ():
        lacks = [what for what, column in _BESIDE.items()
                 if row["middle"] is not None and row[column] is None]  # fmt: skip
        notes = [note for note in (row["middle_note"] or "").split("; ") if note]
        for what in lacks:
            stated = [note.split(": ", 1)[1] for note in notes if note.startswith(f"no {what}: ")]
            why = "; ".join(stated or notes) or "too few documents or sentences to tell"
            key = row["measure"], what, why
            found[key] = found.get(key, 0) + 1
    return [
        f"{labels.get(measure, measure)} has no {what} ({count} pair{'s' * (count > 1)}): {why}"
        for (measure, what, why), count in found.items()
    ]
