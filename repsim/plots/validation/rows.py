"""What the figures of a validation share: rows by split, and a grid of panels.

These figures know plain rows, not the predictor: anyone's forecasts with anyone's outcomes do. A
split is one way of keeping models, languages or arms away from the fit; a stratum is a group of
merges that is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from repsim.core.errors import UsageError

Row = Mapping[str, Any]
#: Most panels, one per split, that a figure has.
MAX_SPLITS = 12
INTERVALS = "95 % intervals, bootstrap over models"


def grouped(rows: Iterable[Row], by: str, needed: Sequence[str], what: str) -> dict[str, list[Row]]:
    """Rows by the value of one column, in order of first appearance."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        for name in (by, *needed):
            if name not in row:
                raise UsageError(f"rows of {what} lack the column '{name}'")
        found.setdefault(str(row[by]), []).append(row)
    if not found:
        raise UsageError(f"there are no {what} to draw")
    return found


def by_split(rows: Iterable[Row], needed: Sequence[str], what: str) -> dict[str, list[Row]]:
    """Rows by their split; `UsageError` if there are more splits than panels."""
    found = grouped(rows, "split", needed, what)
    if len(found) > MAX_SPLITS:
        raise UsageError(f"{len(found)} splits are more than {MAX_SPLITS} panels")
    return found


def column(rows: Sequence[Row], name: str) -> np.ndarray:
    """One column as floats; null is NaN."""
    return np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=float)


def numbers_of(row: Row, *names: str) -> dict[str, float]:
    """Some numbers of a row; NaN for null."""
    return {name: float("nan") if row[name] is None else float(row[name]) for name in names}
