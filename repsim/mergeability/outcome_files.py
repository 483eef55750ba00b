"""Reading tables of merges that somebody else made, whatever their columns are called."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from repsim.core.atlas import join_parents, split_parents
from repsim.core.errors import InputError, UsageError, unknown_name
from repsim.core.formatting import listed
from repsim.core.outcome_table import FEATURE, OutcomeTable
from repsim.core.table_files import read_table_file
from repsim.stats.ranks import pearson

if TYPE_CHECKING:
    import pyarrow as pa

#: Columns of parents that are understood without being named, the first that are there.
PARENTS = (("parents",), ("model_a", "model_b"), ("parent_a", "parent_b"), ("task_a", "task_b"),
           ("a", "b"))  # fmt: skip
#: Columns that say together how a merge was made.
METHOD = ("method", "alignment", "variant")
#: Columns that may say where a row comes from, the first that is there.
SOURCE = ("source", "backbone")
LANGUAGE = "language"
PARTS = (*METHOD, SOURCE[0], LANGUAGE)
#: Outcome that is taken where none is named.
OUTCOME = "retention"
#: Least share of rows that must have a feature.
KNOWN = 0.5
#: Correlation with the outcome from which on one asks whether a feature was known before merging.
TOO_GOOD = 0.98
#: What tells columns of the two parents apart.
_SIDE = re.compile(r"[_-]?([ab12]|left|right)$")

Reduce = Literal["mean", "min"]


def read_outcomes(
    path: str | Path,
    *,
    parents: Sequence[str] = (),
    outcome: Sequence[str] = (),
    features: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    floor: Sequence[str] = (),
    ceiling: Sequence[str] = (),
    reduce: Reduce = "mean",
) -> OutcomeTable:
    r"""Read anyone's table of merges: one row per merge, or per merge and language.

    Features are put into a namespace of their own. If none are named, every column of numbers is
    one that differs from row to row, is known in half of the rows, and is the same for all merges
    of the same parents: what depends on the method was not known before merging.

    Args:
        path: CSV (plain or compressed) or parquet.
        parents: Columns with one parent each, or one with names joined by " + ".
        outcome: Column of what became of the merge, or one per parent.
        features: Columns of features.
        columns: `method`, `alignment`, `variant` (which together say how it was merged), `source`
            or `language` -> its column, where the name is another.
        floor: Score of an untrained model: a number, a column, or one column per outcome.
        ceiling: Score of the parents, likewise. With both, the outcome is the share kept.
        reduce: How several columns of outcomes become one: their mean, or the least.

    Returns:
        The table; `info["notes"]` tells what was left out and why.

    Raises:
        InputError: The file cannot be read, a row names fewer than two parents, a merge stands
            twice, or no row has an outcome.
        UsageError: A column is not there, or there is nothing to forecast from.

    Example:
        >>> import tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "merges.csv"
        >>> _ = file.write_text("a,b,cosine,kept\nx,y,0.9,0.8\nx,z,0.1,-0.2\n")
        >>> table = read_outcomes(file, outcome=["kept"])
        >>> table.members[0], table.features, table["outcome"].tolist()
        (('x', 'y'), ['cosine'], [0.8, -0.2])
    """
    data = read_table_file(path)
    named = _named(data, path, parents, outcome, columns or {})
    notes: list[str] = []
    scores = {
        part: _reduced(data, which, reduce, path)
        for part, which in (("score", named["outcome"]), ("floor", floor), ("ceiling", ceiling))
        if which
    }
    if bool(floor) != bool(ceiling):
        raise UsageError("what is kept needs both the floor and the ceiling of the score")
    scores["outcome"] = _kept(data, named["outcome"], floor, ceiling, reduce, path)
    rows = _rows(data, named, path)
    known = np.isfinite(scores["outcome"])
    if not known.any():
        raise InputError(f"no row of '{path}' has an outcome ({listed(named['outcome'])})")
    if not known.all():
        notes.append(f"{int((~known).sum())} of {len(known)} rows have no outcome and are left out")
    used = {*named["parents"], *named["outcome"], *named["method"], *floor, *ceiling,
            named["source"], named["language"]}  # fmt: skip
    chosen = list(features) or _candidates(data, used, named["outcome"], rows, notes)
    table = {name: _numbers(data, name, path) for name in chosen}
    kept = _informative(table, known, notes)
    for name in kept:
        r = pearson(table[name][known], scores["outcome"][known])
        if abs(r) > TOO_GOOD:
            notes.append(f"feature '{name}' goes with the outcome at r = {r:.3f}: was it known "
                         "before merging?")  # fmt: skip
    made = []
    for number, row in enumerate(rows):
        if known[number]:
            values = {FEATURE + name: table[name][number] for name in kept}
            made.append({**row, **{part: v[number] for part, v in scores.items()}, **values})
    _assert_once(made, path)
    info = {"file": Path(path).name, "notes": notes, "outcome": list(named["outcome"]),
            "reduce": reduce, "parents": list(named["parents"])}  # fmt: skip
    return OutcomeTable(made, info)


def _named(
    data: pa.Table, path: str | Path, parents: Sequence[str], outcome: Sequence[str],
    columns: Mapping[str, str],
) -> dict[str, Any]:  # fmt: skip
    """Which columns play which part: those named, or those that are understood."""
    there = data.column_names
    for part in columns:
        if part not in PARTS:
            raise unknown_name("part of a table", part, PARTS)
    for name in (*parents, *outcome, *columns.values()):
        if name not in there:
            raise unknown_name(f"column of '{path}'", name, there)
    if not parents:
        parents = next((those for those in PARENTS if set(those) <= set(there)), ())
    if not parents:
        raise UsageError(f"which columns of '{path}' name the parents?",
                         hint="say so: --parents model_a,model_b")  # fmt: skip
    if not outcome:
        if OUTCOME not in there:
            raise UsageError(f"which column of '{path}' holds the outcome?",
                             hint="say so: --outcome COLUMN (or one per parent: A,B)")  # fmt: skip
        outcome = (OUTCOME,)
    method = [column for n in METHOD if (column := columns.get(n, n)) in there]
    source = columns.get("source") or next((name for name in SOURCE if name in there), None)
    language = columns.get("language") or (LANGUAGE if LANGUAGE in there else None)
    return {"parents": tuple(parents), "outcome": tuple(outcome), "method": tuple(method),
            "source": source, "language": language}  # fmt: skip


def _numbers(data: pa.Table, name: str, path: str | Path) -> np.ndarray:
    """A column, or a number that was written instead of one, as numbers; NaN where empty."""
    if name not in data.column_names:
        try:
            return np.full(data.num_rows, float(name))
        except ValueError:
            raise unknown_name(f"column of '{path}'", name, data.column_names) from None
    found = np.empty(data.num_rows)
    for row, value in enumerate(data.column(name).to_pylist()):
        try:
            found[row] = math.nan if value is None or value == "" else float(value)
        except (TypeError, ValueError):
            where = f"row {row + 1} of column '{name}' of '{path}'"
            raise InputError(f"{where} holds '{value}', no number") from None
    found[np.isinf(found)] = math.nan
    return found


def _reduced(
    data: pa.Table, names: Sequence[str], reduce: Reduce, path: str | Path
) -> np.ndarray:  # fmt: skip
    """Several columns as one; what is empty in one of them does not count."""
    return _joined(np.stack([_numbers(data, name, path) for name in names]), reduce)


def _joined(values: np.ndarray, reduce: Reduce) -> np.ndarray:
    known = np.isfinite(values)
    if reduce == "min":
        least = np.where(known, values, np.inf).min(axis=0)
        return np.where(known.any(axis=0), least, math.nan)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def _kept(
    data: pa.Table, outcome: Sequence[str], floor: Sequence[str], ceiling: Sequence[str],
    reduce: Reduce, path: str | Path,
) -> np.ndarray:  # fmt: skip
    """Share kept between floor and ceiling, column by column; without them the score itself."""
    score = np.stack([_numbers(data, name, path) for name in outcome])
    if not floor:
        return _joined(score, reduce)
    ends = []
    for names in (floor, ceiling):
        if len(names) not in (1, len(outcome)):
            raise UsageError(
                f"{len(names)} ends for {len(outcome)} outcomes: give one, or one for each"
            )
        end = np.stack([_numbers(data, name, path) for name in names])
        ends.append(np.broadcast_to(end, score.shape))
    room = ends[1] - ends[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        return _joined(np.where(room > 0, (score - ends[0]) / room, math.nan), reduce)


def _rows(data: pa.Table, named: Mapping[str, Any], path: str | Path) -> list[dict[str, str]]:
    """Parents, method, source and language of each row."""
    told = [c for c in named["method"] if len(data.column(c).unique()) > 1]
    told = told or list(named["method"][:1])
    rows = []
    for number, row in enumerate(data.select(
        [n for n in dict.fromkeys((*named["parents"], *named["method"], named["source"],
                                   named["language"])) if n]
    ).to_pylist()):  # fmt: skip
        given = [str(row[c]) for c in named["parents"] if row[c] not in (None, "")]
        names = [one for name in given for one in split_parents(name)]
        if len(set(names)) < 2:
            said = f"'{names[0]}' alone" if names else "no parent"
            raise InputError(f"row {number + 1} of '{path}' names {said}; a merge has two or more",
                             hint=f"parents are read from {listed(named['parents'])}")  # fmt: skip
        method = " | ".join(str(row[c]) for c in told if row[c] not in (None, ""))
        source, language = (
            str(row[c]) if (c := named[part]) and row[c] is not None else ""
            for part in ("source", "language")
        )
        rows.append({"parents": join_parents(sorted(names)), "method": method or "merge",
                     "source": source, "language": language})  # fmt: skip
    return rows


def _candidates(
    data: pa.Table, used: set[str | None], outcome: Sequence[str],
    rows: Sequence[Mapping[str, str]], notes: list[str],
) -> list[str]:  # fmt: skip
    """Columns of numbers that were known before merging, as far as a table can tell."""
    import pyarrow as pa

    numeric = [
        field.name for field in data.schema
        if field.name not in used
        and (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
    ]  # fmt: skip
    stems = [_SIDE.sub("", name) for name in outcome]
    alike = [n for n in numeric if any(n in stem or stem in n for stem in stems)]
    after = [n for n in numeric if n not in alike and _depends_on_method(data, n, rows)]
    if alike:
        notes.append(f"not taken as features, called as the outcome is: {listed(alike)}")
    if after:
        notes.append("not taken as features, since they differ among merges of the same parents "
                     f"and so were not known before: {listed(after)}")  # fmt: skip
    chosen = [name for name in numeric if name not in (*alike, *after)]
    if not chosen:
        raise UsageError("the table has no columns of features", hint="name them: --features a,b")
    return chosen


def _depends_on_method(data: pa.Table, name: str, rows: Sequence[Mapping[str, str]]) -> bool:
    """Whether a column differs among merges of the same parents."""
    seen: dict[tuple[str, ...], Any] = {}
    for row, value in zip(rows, data.column(name).to_pylist(), strict=True):
        if value is None:
            continue
        first = seen.setdefault((row["source"], row["parents"], row["language"]), value)
        if not math.isclose(first, value, rel_tol=1e-6, abs_tol=1e-12):
            return True
    return False


def _informative(
    table: Mapping[str, np.ndarray], known: np.ndarray, notes: list[str]
) -> list[str]:  # fmt: skip
    """Features that are known in enough rows, and differ."""
    kept = []
    for name, values in table.items():
        there = values[known & np.isfinite(values)]
        if len(there) < KNOWN * known.sum():
            notes.append(f"feature '{name}' is known in {len(there)} of {int(known.sum())} rows "
                         "and left out")  # fmt: skip
        elif np.ptp(there) == 0:
            notes.append(f"feature '{name}' is {there[0]:g} in every row and left out")
        else:
            kept.append(name)
    if not kept:
        raise UsageError("no feature of the table is known in half of the rows and differs",
                         hint="name others: --features a,b")  # fmt: skip
    return kept


def _assert_once(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Make sure that no merge stands twice."""
    seen: set[tuple[str, ...]] = set()
    for row in rows:
        key = tuple(row[part] for part in ("source", "parents", "method", "language"))
        if key in seen:
            said = " · ".join(part for part in key if part)
            raise InputError(
                f"'{path}' holds a merge twice: {said}",
                hint="name what tells the two apart: --columns method=COLUMN, or leave one out",
            )
        seen.add(key)
