"""The figures of a validation's report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repsim.core.errors import UsageError
from repsim.reports.page import Prepared, Wanted
from repsim.reports.validation_rows import (
    ORACLE,
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

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Made = tuple[Prepared, Figure]

#: Baselines in figures with a panel per split; the tables hold all.
STRONGEST = 10


def validation_figures(found: Validation) -> list[Wanted]:
    """Every figure of a validation, in the order of the page.

    Args:
        found: The validation.
    """
    better = "Better than the baselines?"
    return [
        Wanted("forecasts", "Retention foretold and found", False, lambda: _forecasts(found)),
        Wanted("reliability", "Probability of collapse", True, lambda: _reliability(found)),
        Wanted("intervals", "Intervals and refusals", True, lambda: _intervals(found)),
        Wanted("lift-error", f"{better} Error of retention, models never seen", True,
               lambda: _lift(found, "mae", "strata")),
        Wanted("lift-rank", f"{better} Order of merges, models never seen", True,
               lambda: _lift(found, "spearman", "strata")),
        Wanted("lift-collapse", f"{better} Collapse, models never seen", True,
               lambda: _lift(found, "auroc", "strata")),
        Wanted("lift-splits", f"{better} Every split", True,
               lambda: _lift(found, "mae", "splits")),
        Wanted("candidates", "Features at hand, and other laws", True, lambda: _candidates(found)),
        Wanted("controls", "Controls with a known answer", True, lambda: _controls(found)),
        Wanted("hypotheses", "Hypotheses, tested in the open", True, lambda: _hypotheses(found)),
    ]  # fmt: skip


def _forecasts(found: Validation) -> Made:
    from repsim.plots.drawing.validation.forecasts import draw_forecasts
    from repsim.plots.validation.forecasts import prepare_forecasts

    data = prepare_forecasts(forecast_rows(found), notes=panel_notes(found))
    return data, draw_forecasts(data)


def _reliability(found: Validation) -> Made:
    from repsim.plots.drawing.validation.reliability import draw_reliability
    from repsim.plots.validation.reliability import prepare_reliability

    notes = reliability_notes(found)
    data = prepare_reliability(collapse_rows(found), notes=notes)
    return data, draw_reliability(data)


def _intervals(found: Validation) -> Made:
    from repsim.plots.drawing.validation.intervals import draw_intervals
    from repsim.plots.validation.intervals import prepare_intervals

    data = prepare_intervals(interval_rows(found))
    return data, draw_intervals(data)


def _lift(found: Validation, metric: str, over: str) -> Made:
    from repsim.plots.drawing.validation.lift import draw_lift
    from repsim.plots.validation.lift import MAX_BASELINES, prepare_lift

    axis = {
        "mae": "mean absolute error of the baseline minus that of the predictor",
        "spearman": "rank correlation of the predictor minus that of the baseline",
        "auroc": "AUROC of collapse of the predictor minus that of the baseline",
    }[metric]
    rows = lift_rows(found, metric, over=over)
    if over == "splits" and len({row["split"] for row in rows}) == 1:
        raise UsageError("there is one split only, and it is shown above")
    labels = {str(row["baseline"]): found.label(str(row["baseline"])) for row in rows}
    most = STRONGEST if over == "splits" else MAX_BASELINES
    data = prepare_lift(rows, axis=axis, labels=labels, most=most)
    return data, draw_lift(data)


def _candidates(found: Validation) -> Made:
    from repsim.plots.drawing.validation.candidates import draw_candidates
    from repsim.plots.validation.candidates import prepare_candidates

    axis = "mean absolute error of retention, models never seen"
    note = ["95 % intervals, bootstrap over models"]
    if found.rivals(ORACLE):
        note.append("trials: of aligned merges there are none")
    data = prepare_candidates(candidate_rows(found), axis=axis, note=note)
    return data, draw_candidates(data)


def _controls(found: Validation) -> Made:
    from repsim.plots.drawing.validation.controls import draw_controls
    from repsim.plots.validation.controls import prepare_controls

    data = prepare_controls(control_rows(found))
    return data, draw_controls(data)


def _hypotheses(found: Validation) -> Made:
    from repsim.plots.drawing.validation.hypotheses import draw_hypotheses
    from repsim.plots.validation.hypotheses import prepare_hypotheses

    data = prepare_hypotheses(hypothesis_rows(found))
    return data, draw_hypotheses(data)
