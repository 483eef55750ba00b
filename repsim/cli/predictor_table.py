"""`repsim predictor validate --table`: what features tell, on anybody's table of merges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.cli.output import print_json, print_table, say
from repsim.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from repsim.mergeability.outcome_validation import OutcomeReport

#: Column of the printed table -> metric.
SHOWN = {
    "r": "pearson", "rho": "spearman", "pooled r": "pearson_pooled",
    "pooled rho": "spearman_pooled", "mae": "mae",
}  # fmt: skip


def validate_table(
    path: Path, *, parents: str | None, outcome: str | None, features: str | None,
    columns: Sequence[str], floor: str | None, ceiling: str | None, reduce: str, protocol: bool,
    regressor: str | None, splits: Sequence[str], draws: int, seed: int, workers: int,
    out: Path | None, csv: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Read the table, validate, and print or write what was found."""
    from repsim.mergeability.outcome_files import read_outcomes
    from repsim.mergeability.outcome_validation import validate_outcomes

    names, directions = _directions(_listed(features))
    table = read_outcomes(
        path, parents=_listed(parents), outcome=_listed(outcome), features=names,
        columns=renamed(columns), floor=_listed(floor), ceiling=_listed(ceiling),
        reduce="min" if reduce == "min" else "mean",
    )  # fmt: skip
    for note in table.info["notes"]:
        say("note", note)
    groups, methods = len(set(table["parents"])), len(set(table["method"]))
    members = len({name for row in table.members for name in row})
    say("plan", f"{len(table)} merges of {members} models in {groups} groups, {methods} methods, "
                f"{len(table.features)} features")  # fmt: skip
    report = validate_outcomes(
        table, directions=directions, regressor=regressor, protocol=protocol, splits=splits,
        draws=draws, seed=seed, workers=workers, say=lambda text: say("split", text),
    )  # fmt: skip
    page = _write(report, out) if out else None
    if csv:
        say("wrote", str(report.scores.save(csv.with_suffix(".csv"))))
    if as_json:
        print_json({**report.to_json(), "report": str(page) if page else None})
    else:
        _print(report)
    for warning in report.info["warnings"]:
        say("note", warning)
    say("next", f"open {page}" if page else "add -o DIR to keep tables, forecasts and a report")


def _listed(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()] if text else []


def renamed(columns: Sequence[str]) -> dict[str, str]:
    """Column of ours -> column of the table, from NAME=COLUMN."""
    found = {}
    for text in columns:
        name, equals, column = text.partition("=")
        if not equals:
            raise UsageError(f"--columns needs NAME=COLUMN, got '{text}'")
        found[name] = column
    return found


def _directions(features: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """Names of features, and the directions that were stated: NAME:+, NAME:- or NAME:0."""
    names, found = [], {}
    signs = {"+": 1, "-": -1, "0": 0}
    for text in features:
        name, colon, sign = text.rpartition(":")
        if colon and sign in signs:
            names.append(name)
            found[name] = signs[sign]
        elif colon and sign.strip("+-0123456789") == "":
            raise UsageError(f"a direction is +, - or 0, not '{sign}' (in '{text}')")
        else:
            names.append(text)
    return names, found


def _write(report: OutcomeReport, out: Path) -> Path:
    report.save(out)  # before anything that is needed to draw

    from repsim.core.provenance import environment
    from repsim.reports.outcomes import write_outcome_report

    page = write_outcome_report(report.scores, report.info, out, environment=environment())
    say("wrote", f"{out}: report.html and .md, outcome_scores.csv, outcome_forecasts.csv")
    return page


def _print(report: OutcomeReport) -> None:
    """One line per split, predictor and method: within folds, then pooled."""
    wide: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in report.scores.rows():
        key = (row["split"], row["predictor"], row["method"])
        wide.setdefault(key, {"split": key[0], "predictor": key[1], "method": key[2]})
        for name, metric in SHOWN.items():
            if row["metric"] == metric:
                wide[key][name] = row["value"]
        if row["metric"] == "pearson":
            ends = (row["ci_low"], row["ci_high"])
            wide[key]["95 %"] = "–" if None in ends else f"[{ends[0]:.2f}, {ends[1]:.2f}]"
    several = len(report.info["methods"]) > 1
    kept = [row for row in wide.values() if several or row["method"] == "all"]
    heads = ("split", "predictor", "method", "r", "95 %", "rho", "pooled r", "pooled rho", "mae")
    print_table(kept, {name: name for name in heads})
