"""The tables of a validation's report: those of the page, and everything in full as CSV."""

from __future__ import annotations

from typing import Any

from repsim.core.formatting import number
from repsim.reports.blocks import TableBlock
from repsim.reports.validation_rows import MAIN_SPLIT, ORACLE, STRATA, Row, Validation

#: Parts of the document that are kept in full.
WHOLE = ("metrics", "lifts", "forecasts", "controls", "hypotheses", "goals")


def validation_tables(found: Validation) -> list[TableBlock]:
    """Tables of the page, without those that have no rows."""
    tables = [_skill(found), _rivals(found), _controls(found), _hypotheses(found), _splits(found)]
    return [table for table in tables if table.rows]


def goal_table(found: Validation) -> TableBlock:
    """Goals that were set before, and whether they are reached."""
    headings = {"goal": "goal", "wanted": "wanted", "found": "observed", "ci_low": "95 % low",
                "ci_high": "95 % high", "reached": "reached", "why": "why"}  # fmt: skip
    rows = tuple(
        {
            **{name: row.get(name) for name in headings}, "why": row.get("why") or "",
            "reached": "yes" if row["reached"] else "no",
        }
        for row in found.document["goals"]
    )  # fmt: skip
    return TableBlock("goals", "", headings, rows, folded=False)


def whole_tables(found: Validation) -> list[TableBlock]:
    """Every part of the document, for CSV in full precision."""
    parts = {name: found.document[name] for name in WHOLE}
    return [
        TableBlock(f"all-{name}", name, dict.fromkeys(rows[0], ""), rows)
        for name, rows in parts.items()
        if rows
    ]


def _skill(found: Validation) -> TableBlock:
    metrics = {
        "spearman": "rank correlation", "mae": "MAE", "auroc": "AUROC", "brier": "Brier",
        "ece": "ECE", "coverage": "coverage", "width": "width", "refused": "refused",
        "auroc_useful": "AUROC, useful",
    }  # fmt: skip
    ends = {"spearman": "interval", "mae": "interval ", "auroc": "interval  "}
    headings = {"split": "split", "stratum": "merges of", "merges": "merges"}
    for name, heading in metrics.items():
        headings[name] = heading
        if name in ends:
            headings[f"{name}_ends"] = ends[name]
    rows = []
    for split in found.splits:
        for stratum in found.strata:
            size = found.metric("mae", split, stratum)
            if size is None:
                continue
            row: Row = {"split": split, "stratum": STRATA.get(stratum, stratum),
                        "merges": size["merges"]}  # fmt: skip
            for name in metrics:
                row[name] = found.value(name, split, stratum)
                if name in ends:
                    row[f"{name}_ends"] = _ends(found.metric(name, split, stratum))
            rows.append(row)
    return TableBlock(
        "skill", f"Skill of the predictor ({found.predictor}) in every split", headings,
        tuple(rows), whole=frozenset({"split", *(f"{name}_ends" for name in ends)}),
    )  # fmt: skip


def _ends(row: Row | None) -> str | None:
    if row is None or row["ci_low"] is None or row["ci_high"] is None:
        return None
    return f"[{number(row['ci_low'])}, {number(row['ci_high'])}]"


def _rivals(found: Validation) -> TableBlock:
    headings = {"name": "predictor", "role": "kind"}
    columns = {
        (metric, stratum): f"{heading}, {STRATA.get(stratum, stratum)}"
        for stratum in found.strata
        for metric, heading in (("mae", "MAE"), ("spearman", "rank corr."), ("auroc", "AUROC"))
    }
    headings |= {f"{metric} {stratum}": text for (metric, stratum), text in columns.items()}
    rows: list[Row] = []
    kinds = {"predictor": "features at hand", ORACLE: "trial of the merge, no forecast",
             "regressor": "regressor", "baseline": "baseline"}  # fmt: skip
    for role, kind in kinds.items():
        for name in found.rivals(role):
            shown = found.label(name) if role == "baseline" else name
            row: Row = {"name": shown, "role": kind}
            row |= {
                f"{metric} {stratum}": found.value(metric, MAIN_SPLIT, stratum, name)
                for metric, stratum in columns
            }
            rows.append(row)
    first = "mae all"
    rows.sort(key=lambda row: row[first] if row.get(first) is not None else float("inf"))
    return TableBlock(
        "rivals",
        "Predictors, other regressors and baselines on models never seen",
        headings,
        tuple(rows),
    )


def _controls(found: Validation) -> TableBlock:
    headings = {
        "split": "split", "control": "control", "alignment": "alignment", "answer": "theory says",
        "merges": "merges", "survived": "survived", "right": "right", "wrong": "wrong",
        "refused": "refused",
    }  # fmt: skip
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in found.document["controls"]:
        key = tuple(row[name] for name in ("split", "control", "alignment", "answer"))
        groups.setdefault(key, []).append(row)
    rows = tuple(
        {
            **dict(zip(headings, key, strict=False)), "merges": len(group),
            "survived": sum(row["came"] == "lives" for row in group),
            "right": sum(row["right"] == 1 for row in group),
            "wrong": sum(row["right"] == 0 for row in group),
            "refused": sum(row["right"] is None for row in group),
        }
        for key, group in groups.items()
    )  # fmt: skip
    return TableBlock("controls", "Controls with a known answer", headings, rows)


def _hypotheses(found: Validation) -> TableBlock:
    headings = {
        "hypothesis": "hypothesis", "quantity": "quantity", "value": "value",
        "ci_low": "95 % low", "ci_high": "95 % high", "n": "n", "verdict": "verdict",
    }  # fmt: skip
    rows = tuple({name: row[name] for name in headings} for row in found.document["hypotheses"])
    return TableBlock("hypotheses", "Numbers behind the hypotheses", headings, rows)


def _splits(found: Validation) -> TableBlock:
    info = found.info
    headings = {"split": "split", "question": "question", "folds": "folds", "skipped": "skipped"}
    rows = tuple(
        {"split": name, "question": question, "folds": info.get("folds", {}).get(name),
         "skipped": len(info.get("skipped", {}).get(name, []))}
        for name, question in info.get("splits", {}).items()
    )  # fmt: skip
    return TableBlock("splits", "How the evidence was parted", headings, rows)
