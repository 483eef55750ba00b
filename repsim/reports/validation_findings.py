"""What a validation says, in words: `validation_findings.yaml` evaluated over its tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib import resources
from typing import Any

from repsim.plots.validation.intervals import GOAL
from repsim.reports.validation_rows import (
    MAIN_SPLIT,
    ORACLE,
    STRATA,
    Row,
    Validation,
    with_interval,
)
from repsim.stats.statements import Statement, read_entries, statements


def validation_findings(found: Validation) -> list[Statement]:
    """What was found (kind "result"), and what limits it (kind "warning")."""
    entries = read_entries(resources.files("repsim.reports").joinpath("validation_findings.yaml"))
    return statements(entries, _offered(found))


def headline(found: Validation) -> str:
    """Goals reached, out of how many; what is stated of smaller sets of tiers does not count."""
    counts = Counter(row["reached"] for row in found.goals().rows())
    if not counts:
        return ""
    parts = [f"{counts['yes']} of {counts.total()} goals reached"]
    open_ = counts["lead not certain"]
    parts += [f"{open_} {'lead' if open_ == 1 else 'leads'} not certain"] if open_ else []
    return ", ".join([*parts, f"{counts['no']} missed"] if counts["no"] else parts)


def _offered(found: Validation) -> dict[str, Any]:
    """What the entries may name."""

    def with_values(names: Sequence[str], *metrics: str) -> list[tuple[Any, ...]]:
        rows = [(name, *(found.value(m, predictor=name) for m in metrics)) for name in names]
        return [row for row in rows if None not in row]

    def split_values(metric: str) -> list[tuple[str, float]]:
        values = ((split, found.value(metric, split)) for split in found.splits)
        return [(split, value) for split, value in values if value is not None]

    return {
        "v": found, "MAIN": MAIN_SPLIT, "ORACLE": ORACLE, "STRATA": STRATA, "GOAL": GOAL,
        "interval": with_interval, "with_values": with_values, "split_values": split_values,
        "baselines": list(_baselines(found)), "kinds": _kinds, "against_theory": _against_theory,
    }  # fmt: skip


def _baselines(found: Validation) -> list[tuple[str, int, int, Row]]:
    """Split, baselines that are certainly worse, of how many, and the nearest one."""
    made = []
    for split in found.splits:
        rows = [row for row in found.rows("lifts", split=split, stratum="all", metric="mae")
                if row["lift"] is not None]  # fmt: skip
        if rows:
            better = sum(row["ci_low"] is not None and row["ci_low"] > 0 for row in rows)
            made.append((split, better, len(rows), min(rows, key=lambda row: row["lift"])))
    return made


def _kinds(rows: Sequence[Row]) -> list[str]:
    """Kinds of control with their numbers."""
    kinds = [f"{row['control']} with alignment {row['alignment']}" for row in rows]
    return [f"{kind} {kinds.count(kind)}" for kind in dict.fromkeys(kinds)]


def _against_theory(rows: Sequence[Row]) -> int:
    return sum(row["answer"] != "open" and row["answer"] != row["came"] for row in rows)
