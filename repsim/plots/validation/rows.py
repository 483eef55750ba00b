"""What the figures of a predictor's validation share: rows by split, strata, and their order.

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


def by_split(rows: Iterable[Row], needed: Sequence[str], what: str) -> dict[str, list[Row]]:
    """Rows by their split, in order of first appearance.

    Args:
        rows: Rows with a column "split".
        needed: Columns that every row must have.
        what: What the rows are, for the error.

    Raises:
        UsageError: No rows, a column is missing, or there are more splits than panels.

    Example:
        >>> rows = [{"split": "a", "x": 1}, {"split": "b", "x": 2}, {"split": "a", "x": 3}]
        >>> {name: len(found) for name, found in by_split(rows, ["x"], "numbers").items()}
        {'a': 2, 'b': 1}
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        needs(row, ("split", *needed), what)
        found.setdefault(str(row["split"]), []).append(row)
    if not found:
        raise UsageError(f"there are no {what} to draw")
    if len(found) > MAX_SPLITS:
        raise UsageError(f"{len(found)} splits are more than {MAX_SPLITS} panels")
    return found


def column(rows: Sequence[Row], name: str) -> np.ndarray:
    """One column as floats; null is NaN.

    Example:
        >>> column([{"x": 1}, {"x": None}], "x").tolist()
        [1.0, nan]
    """
    return np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=float)


def needs(row: Row, names: Sequence[str], what: str) -> None:
    """Make sure that a row has some columns.

    Args:
        row: The row.
        names: Columns.
        what: What the rows are, for the error.

    Raises:
        UsageError: One is missing.

    Example:
        >>> needs({"x": 1}, ["x"], "numbers")
    """
    for name in names:
        if name not in row:
            raise UsageError(f"rows of {what} lack the column '{name}'")


def known(value: Any) -> float:
    """A number; NaN for null.

    Example:
        >>> known(1), known(None)
        (1.0, nan)
    """
    return float("nan") if value is None else float(value)
