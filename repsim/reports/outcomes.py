"""The report of a validation on a table of outcomes that somebody else made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repsim.core.formatting import number
from repsim.core.table import Table
from repsim.reports.blocks import (
    ENDS,
    Block,
    FigureBlock,
    Items,
    Page,
    Section,
    TableBlock,
    Text,
    declared,
    software,
)
from repsim.reports.glossary import definitions
from repsim.reports.page import write_page


def write_outcome_report(
    scores: Table,
    info: Mapping[str, Any],
    folder: str | Path,
    *,
    environment: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report of a validation on a table of outcomes."""
    return write_page(outcome_page(scores, info, environment or {}), folder)


def outcome_page(scores: Table, info: Mapping[str, Any], environment: Mapping[str, Any]) -> Page:
    """The report as blocks."""
    lead = (f"{info['rows']} merges of {info['models']} models, {len(info['methods'])} methods, "
            f"{len(info['features'])} features")  # fmt: skip
    figure = FigureBlock("scores", "What forecasts tell", "outcome_scores", scores)
    chosen = [
        f"{split}, {name}: " + ", ".join(f"{what} ({count})" for what, count in counts.items())
        for split, by in info["chosen"].items() for name, counts in by.items()
    ]  # fmt: skip
    about: list[Block] = [Text(f"Table `{info.get('file', '')}`. Features: "
                               + " · ".join(info["features"]))]  # fmt: skip
    return Page(
        "What features tell of merges, on a table of others",
        [
            Section("What was found", [Items(_findings(scores, info)),
                                       Items(info["warnings"], "warnings")]),
            Section("Figure", [figure]),
            Section("Scores", [_table(scores, split, question)
                               for split, question in info["splits"].items()]),
            Section("Chosen in the folds", [Items(chosen, "note")] if chosen else []),
            Section("How it was tested", [definitions("outcomes", draws=info["draws"])]),
            Section("Where it comes from",
                    [*about, Items(info.get("notes", []), "note"), *software(environment)]),
        ],
        kicker="repsim · validation on a table of outcomes",
        lead=lead,
        facts={"info": dict(info), "environment": dict(environment)},
    )  # fmt: skip


def _findings(scores: Table, info: Mapping[str, Any]) -> list[str]:
    """One sentence per split: the forecasts by their mean correlation within folds."""
    found = []
    for split, question in info["splits"].items():
        rows = [row for row in scores.where(split=split, method="all", metric="pearson").rows()
                if row["role"] != "regressor"]  # fmt: skip
        if rows:
            said = [f"{row['predictor']} {number(row['value'])}"
                    f" [{number(_end(row['ci_low']))}, {number(_end(row['ci_high']))}]"
                    for row in rows]  # fmt: skip
            found.append(f"{split} ({question}): r within folds, mean over methods: "
                         f"{'; '.join(said)}.")  # fmt: skip
    return found


def _end(value: float | None) -> float:
    return float("nan") if value is None else value


_SCORES = {
    "predictor": ("string", "forecast"), "role": ("string", "role"), "method": ("string", "method"),
    "pearson": ("float", "mean correlation within folds", "r within folds"),
    **ENDS,
    "spearman": ("float", "mean rank correlation within folds", "rho within folds"),
    "pearson_pooled": ("float", "correlation over all folds", "r pooled"),
    "spearman_pooled": ("float", "rank correlation over all folds", "rho pooled"),
    "mae": ("float", "mean absolute error", "mean error"),
    "folds": ("int", "folds that define the correlation", "folds"),
    "rows": ("int", "tested merges, once per fold", "tested"),
}  # fmt: skip


def _table(scores: Table, split: str, question: str) -> TableBlock:
    wide: dict[tuple[str, str], dict[str, Any]] = {}
    for row in scores.where(split=split).rows():
        key = (row["predictor"], row["method"])
        mine = wide.setdefault(key, {"predictor": key[0], "role": row["role"], "method": key[1]})
        mine[row["metric"]] = row["value"]
        if row["metric"] == "pearson":
            mine |= {"low": row["ci_low"], "high": row["ci_high"], "folds": row["folds"]}
        mine["rows"] = row["rows"]
    return TableBlock(split, f"{split}: {question}", declared(_SCORES, wide.values()))
