"""The tables of a validation's page."""

from __future__ import annotations

from typing import Any

from repsim.core.formatting import number
from repsim.reports.blocks import TableBlock, declared
from repsim.reports.validation_rows import MAIN_SPLIT, ORACLE, STRATA, Row, Validation

#: Metric -> heading.
_SKILL = {
    "spearman": "rank correlation", "mae": "MAE", "auroc": "AUROC", "brier": "Brier",
    "ece": "ECE", "coverage": "coverage", "width": "width", "refused": "refused",
    "auroc_useful": "AUROC, useful",
}  # fmt: skip
#: Metrics that have their interval beside them.
_WITH_ENDS = ("spearman", "mae", "auroc")
_CONTROLS = {
    "split": ("string", "split"), "control": ("string", "control"),
    "alignment": ("string", "alignment"), "answer": ("string", "theory says"),
    "merges": ("int", "merges"), "survived": ("int", "survived"), "right": ("int", "right"),
    "wrong": ("int", "wrong"), "refused": ("int", "refused"),
}  # fmt: skip
_SPLITS = {"split": ("string", "split"), "question": ("string", "question"),
           "folds": ("int", "folds"), "skipped": ("int", "skipped")}  # fmt: skip


def validation_tables(found: Validation) -> list[TableBlock]:
    """Tables of the page, without those that have no rows."""
    shown = ("hypothesis", "quantity", "value", "ci_low", "ci_high", "n", "verdict")
    hypotheses = TableBlock(
        "hypotheses", "Numbers behind the hypotheses", found.tables["hypotheses"], shown
    )
    tables = [
        _skill(found), _smaller_sets(found), _rivals(found), _controls(found), hypotheses,
        _splits(found),
    ]  # fmt: skip
    return [block for block in tables if len(block.table)]


def goal_table(found: Validation) -> TableBlock:
    """Goals, when they were set, and whether they are reached."""
    shown = ("goal", "set", "wanted", "found", "ci_low", "ci_high", "reached", "why")
    return TableBlock("goals", "", found.goals(), shown, folded=False)


def _smaller_sets(found: Validation) -> TableBlock:
    """The same goals for predictors of fewer tiers, which the count above leaves out."""
    shown = ("goal", "features", "wanted", "found", "reached", "why")
    return TableBlock(
        "smaller_sets", "Goals by smaller sets of tiers", found.goals(own=False), shown
    )


def _skill(found: Validation) -> TableBlock:
    columns: dict[str, tuple[str, ...]] = {
        "split": ("string", "how evidence was parted", "split", "unbroken"),
        "stratum": ("string", "merges of"), "merges": ("int", "merges"),
    }  # fmt: skip
    for name, heading in _SKILL.items():
        columns[name] = ("float", heading)
        if name in _WITH_ENDS:
            columns[f"{name}_ends"] = ("string", "95 % interval", "interval", "unbroken")
    rows = []
    for split in found.splits:
        for stratum in found.strata:
            size = found.metric("mae", split, stratum)
            if size is None:
                continue
            row: Row = {"split": split, "stratum": STRATA.get(stratum, stratum),
                        "merges": size["merges"]}  # fmt: skip
            row |= {name: found.value(name, split, stratum) for name in _SKILL}
            for name in _WITH_ENDS:
                row[f"{name}_ends"] = _ends(found.metric(name, split, stratum))
            rows.append(row)
    title = f"Skill of the predictor ({found.predictor}) in every split"
    return TableBlock("skill", title, declared(columns, rows))


def _ends(row: Row | None) -> str | None:
    if row is None or row["ci_low"] is None or row["ci_high"] is None:
        return None
    return f"[{number(row['ci_low'])}, {number(row['ci_high'])}]"


def _rivals(found: Validation) -> TableBlock:
    cells = {
        f"{metric} {stratum}": (metric, stratum, f"{heading}, {STRATA.get(stratum, stratum)}")
        for stratum in found.strata
        for metric, heading in (("mae", "MAE"), ("spearman", "rank corr."), ("auroc", "AUROC"))
    }
    rows: list[Row] = []
    kinds = {"predictor": "features at hand", ORACLE: "trial of the merge, no forecast",
             "regressor": "regressor", "baseline": "baseline"}  # fmt: skip
    for role, kind in kinds.items():
        for name in found.rivals(role):
            shown = found.label(name) if role == "baseline" else name
            values = {
                column: found.value(metric, MAIN_SPLIT, stratum, name)
                for column, (metric, stratum, _) in cells.items()
            }
            rows.append({"name": shown, "role": kind, **values})
    first = "mae all"
    rows.sort(key=lambda row: row[first] if row.get(first) is not None else float("inf"))
    columns = {"name": ("string", "predictor"), "role": ("string", "kind")}
    columns |= {column: ("float", heading) for column, (*_, heading) in cells.items()}
    title = "Predictors, other regressors and baselines on models never seen"
    return TableBlock("rivals", title, declared(columns, rows))


def _controls(found: Validation) -> TableBlock:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in found.rows("controls"):
        key = tuple(row[name] for name in ("split", "control", "alignment", "answer"))
        groups.setdefault(key, []).append(row)
    rows = [
        {
            **dict(zip(_CONTROLS, key, strict=False)), "merges": len(group),
            "survived": sum(row["came"] == "lives" for row in group),
            "right": sum(row["right"] == 1 for row in group),
            "wrong": sum(row["right"] == 0 for row in group),
            "refused": sum(row["right"] is None for row in group),
        }
        for key, group in groups.items()
    ]  # fmt: skip
    return TableBlock("controls", "Controls with a known answer", declared(_CONTROLS, rows))


def _splits(found: Validation) -> TableBlock:
    folds, skipped = found.info.get("folds", {}), found.info.get("skipped", {})
    rows = [
        {"split": name, "question": question, "folds": folds.get(name),
         "skipped": len(skipped.get(name, []))}
        for name, question in found.info.get("splits", {}).items()
    ]  # fmt: skip
    return TableBlock("splits", "How the evidence was parted", declared(_SPLITS, rows))
