"""Tables of features and outcomes that somebody else made, as evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.atlas import join_parents, split_parents
from repsim.core.errors import InputError, UsageError, unknown_name
from repsim.core.table_files import read_table_file
from repsim.mergeability.evidence import NO_INFINITY, EvidenceTable

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: Columns of other people's tables that are understood without being told, and their default.
_OPTIONAL = ("method", "alignment", "language", "arm", "control", "shared_init", "fork_fraction",
             "family", "text")  # fmt: skip


def read_evidence(
    path: str | Path,
    *,
    parents: Sequence[str] = ("parents",),
    outcome: str = "retention",
    features: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    merge: str | None = None,
) -> EvidenceTable:
    r"""Read anyone's table of merges: one row per merge, or per merge and language.

    Args:
        path: CSV or parquet.
        parents: Columns with one parent each, or one column with names joined by " + ".
        outcome: Column of what was kept: 1 for nothing lost, 0 for nothing kept.
        features: Columns of features; all other columns of numbers if empty.
        columns: Column of evidence -> column of the file, where the names differ: `method`,
            `alignment`, `language`, `arm`, `control`, `shared_init`, `fork_fraction`, `family`,
            `text`.
        merge: Column that says which rows are one merge; parents, method and alignment if None.

    Returns:
        The evidence; rows without outcome are left out.

    Raises:
        InputError: The file cannot be read, or a column is not of numbers.
        UsageError: A column is not there.

    Example:
        >>> import tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "merges.csv"
        >>> _ = file.write_text("a,b,cosine,kept\nx,y,0.9,0.8\nx,z,0.1,-0.2\n")
        >>> table = read_evidence(file, parents=["a", "b"], outcome="kept")
        >>> table.parents[0], list(table.features), table["retention"].tolist()
        (('x', 'y'), ['cosine'], [0.8, -0.2])
    """
    data = read_table_file(path)
    renamed = {name: (columns or {}).get(name, name) for name in _OPTIONAL}
    for name in columns or {}:
        if name not in _OPTIONAL:
            raise unknown_name("column of evidence", name, _OPTIONAL)
    asked = [*parents, outcome, *features, *(columns or {}).values(), *([merge] if merge else [])]
    for name in asked:
        if name not in data.column_names:
            raise unknown_name(f"column of '{path}'", name, data.column_names)
    used = {*parents, outcome, *renamed.values(), merge, "merge", "advantage", "useful", "source"}
    chosen = list(features) or [n for n in data.column_names if n not in used and _numeric(data, n)]
    if not chosen:
        raise UsageError(f"'{path}' has no columns of features", hint="name them: --features a,b")
    known = [row for row in data.to_pylist() if row[outcome] is not None]
    rows = [_row(row, parents, outcome, renamed, merge) for row in known]
    values = {name: [_value(row[name], name, path) for row in known] for name in chosen}
    return EvidenceTable.from_rows(rows, values, _tiers(chosen))


def evidence_of(rows: EvidenceTable | pd.DataFrame) -> EvidenceTable:
    """Evidence, also from a frame of its columns; tiers that it does not state are looked up."""
    if isinstance(rows, EvidenceTable):
        return rows
    table = EvidenceTable(rows)
    return table.with_columns({}, {"tiers": {**_tiers(list(table.features)), **table.tiers}})


def _row(
    row: Mapping[str, Any], parents: Sequence[str], outcome: str, renamed: Mapping[str, str],
    merge: str | None,
) -> dict[str, Any]:  # fmt: skip
    names = [str(row[column]) for column in parents if row[column] not in (None, "")]
    joined = join_parents([one for name in names for one in split_parents(name)])
    made: dict[str, Any] = {name: row.get(column) for name, column in renamed.items()}
    made |= {"parents": joined, "retention": _value(row[outcome], outcome, "the table")}
    made |= {name: row[name] for name in ("advantage", "useful", "source") if name in row}
    made["method"] = made["method"] or "merge"
    made["alignment"] = made["alignment"] or "none"
    given = row.get(merge) if merge else None
    made["merge"] = given or f"{joined} | {made['method']} | {made['alignment']}"
    return made


def _numeric(data: pa.Table, name: str) -> bool:
    import pyarrow as pa

    kind = data.schema.field(name).type
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def _value(value: Any, name: str, path: str | Path) -> float:
    if value is None:
        return math.nan
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise InputError(f"column '{name}' of '{path}' holds '{value}', no number") from None
    if math.isinf(found):
        raise InputError(f"column '{name}' of '{path}' holds '{value}'", hint=NO_INFINITY)
    return found


def _tiers(names: Sequence[str]) -> dict[str, str]:
    """Tiers of known features; others are taken as tier "table"."""
    from repsim.mergeability.features import FEATURES

    known = set(FEATURES.names())
    return {name: FEATURES[name].tier if name in known else "table" for name in names}
