"""The figures of a validation's report."""

from __future__ import annotations

from typing import Any

from repsim.plots.validation.lift import MAX_BASELINES
from repsim.reports.blocks import FigureBlock
from repsim.reports.validation_rows import (
    ORACLE,
    Row,
    Validation,
    candidate_rows,
    collapse_rows,
    control_rows,
    forecast_rows,
    hypothesis_rows,
    interval_rows,
    lift_rows,
    panel_notes,
    reliability_notes,
)

#: Baselines in figures with a panel per split; the tables hold all.
STRONGEST = 10
_UNSEEN = "models never seen"
#: Stem -> heading, metric, panels, axis.
_LIFTS = {
    "lift-error": (f"Size of errors, {_UNSEEN}", "mae", "strata",
                   "mean absolute error of the baseline minus that of the predictor"),
    "lift-rank": (f"Order of merges, {_UNSEEN}", "spearman", "strata",
                  "rank correlation of the predictor minus that of the baseline"),
    "lift-collapse": (f"Collapse, {_UNSEEN}", "auroc", "strata",
                      "AUROC of collapse of the predictor minus that of the baseline"),
    "lift-splits": ("Every split", "mae", "splits",
                    "mean absolute error of the baseline minus that of the predictor"),
}  # fmt: skip


def validation_figures(found: Validation) -> list[FigureBlock]:
    """Every figure of a validation, in the order of the page."""
    note = ["95 % intervals, bootstrap over models"]
    if found.rivals(ORACLE):
        note.append("trials: of aligned merges there are none")
    compared = {"axis": f"mean absolute error of {found.outcome}, {_UNSEEN}", "note": note}
    return [
        _block("forecasts", f"Predicted against observed {found.outcome}", forecast_rows(found),
               notes=panel_notes(found), outcome=found.outcome),
        _block("reliability", "Probability of collapse", collapse_rows(found),
               notes=reliability_notes(found)),
        _block("intervals", "Intervals and refusals", interval_rows(found)),
        *(_lift(found, name) for name in _LIFTS),
        _block("candidates", "Features and regressors compared", candidate_rows(found),
               **compared),
        _block("controls", "Controls with a known answer", control_rows(found)),
        _block("hypotheses", "Hypotheses and their numbers", hypothesis_rows(found)),
    ]  # fmt: skip


def _block(name: str, title: str, rows: list[Row], **options: Any) -> FigureBlock:
    return FigureBlock(name, title, f"validation_{name.partition('-')[0]}", rows, options)


def _lift(found: Validation, name: str) -> FigureBlock:
    title, metric, over, axis = _LIFTS[name]
    rows = lift_rows(found, metric, over=over)
    labels = {str(row["baseline"]): found.label(str(row["baseline"])) for row in rows}
    if over == "splits" and len({row["split"] for row in rows}) == 1:
        rows = []  # the one split is shown above
    most = STRONGEST if over == "splits" else MAX_BASELINES
    title = f"Better than the baselines? {title}"
    return _block(name, title, rows, axis=axis, labels=labels, most=most)
