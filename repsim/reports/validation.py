"""Build the report of a predictor's validation: one page to send, and beside it all that is in it.

`report.html` is a single file: it opens from disk, needs no network and no JavaScript, prints, and
stays under 3 MB. `report.md`, `report.json`, `tables/` and `figures/` hold the same for papers and
programs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from repsim.core.errors import UsageError
from repsim.core.files import write_json, write_text
from repsim.reports.build import MAX_BYTES
from repsim.reports.figures import Picture
from repsim.reports.study_page import as_data, filled
from repsim.reports.validation_findings import findings, headline, warnings
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
    verdicts,
)
from repsim.reports.validation_tables import (
    goal_table,
    page_cell,
    unbroken,
    validation_tables,
    write_whole,
)

#: Baselines in figures with a panel per split; the tables hold all.
STRONGEST = 10
#: Longer tables are folded on the page.
LONG = 20


class Reported(Protocol):
    """A validation that can be read: `repsim.mergeability.ValidationReport` is one."""

    def to_json(self) -> dict[str, Any]:
        """The document."""
        ...


def write_validation_report(
    report: Reported | Mapping[str, Any],
    folder: str | Path,
    *,
    labels: Mapping[str, str] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report of a validation into a folder.

    Args:
        report: What `repsim.mergeability.validate` returned, or its `to_json()`.
        folder: Where to write; made if missing.
        labels: Name of a feature -> name for people, in place of the words of its name.
        environment: Versions, platform and command, for the section on provenance.

    Returns:
        Path of `report.html`.

    Raises:
        InputError: The document is no validation.

    Example:
        >>> write_validation_report.__name__  # see `repsim predictor validate -o DIR`
        'write_validation_report'
    """
    document = report if isinstance(report, Mapping) else report.to_json()
    found = Validation(document, labels)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    goals, tables = goal_table(found), validation_tables(found)
    for table in (goals, *tables):
        table.write(target / "tables")
    write_whole(found, target / "tables")
    pictures, missing = draw_validation_figures(found, target / "figures")
    content = {
        "title": "How good are forecasts of merges?",
        "headline": headline(found),
        "findings": findings(found),
        "warnings": warnings(found),
        "verdicts": list(verdicts(found)),
        "missing": missing,
        "info": dict(found.info),
        "features": [found.label(name) for name in found.info.get("features", [])],
        "environment": dict(environment or {}),
    }
    write_json(target / "report.json", content)
    shown = {**content, "goals": goals, "tables": tables, "pictures": pictures, "cell": page_cell,
             "unbroken": unbroken, "long": LONG}  # fmt: skip
    write_text(target / "report.md", filled("validation.md.j2", shown, escape=False))
    return _write_page(target / "report.html", shown)


def _write_page(path: Path, content: dict[str, Any]) -> Path:
    """Write the page; the last pictures are left out, and named, if it would grow too large."""
    pictures: list[Picture] = list(content["pictures"])
    left_out: list[str] = []
    while True:
        shown = {**content, "pictures": pictures, "left_out": left_out}
        page = filled("validation.html.j2", shown, escape=True)
        if len(page.encode()) <= MAX_BYTES or not pictures:
            break
        left_out.insert(0, pictures.pop().paths[0].name)
    return write_text(path, page)


def draw_validation_figures(found: Validation, folder: Path) -> tuple[list[Picture], list[str]]:
    """Draw every figure that a validation supports and save it as PNG and SVG.

    Args:
        found: The validation.
        folder: Where to write.

    Returns:
        The pictures, and for each figure that it cannot fill a sentence that says why.
    """
    from repsim.plots import save_figure

    pictures, missing = [], []
    for name, (title, vector, make) in _figures(found).items():
        try:
            data, draw = make()
        except UsageError as reason:
            missing.append(f"{title}: {reason.what}.")
            continue
        paths = tuple(save_figure(draw(data), folder / name, ("png", "svg")))
        chosen = as_data(paths[1] if vector else paths[0])
        pictures.append(Picture(title, data.caption(), paths, chosen))
    return pictures, missing


#: Prepared data, and what draws them.
_Made = tuple[Any, Callable[[Any], Any]]


def _figures(found: Validation) -> dict[str, tuple[str, bool, Callable[[], _Made]]]:
    """Name of a figure -> heading, whether the page holds it as SVG, and how it is prepared."""
    return {
        "forecasts": ("Retention foretold and found", False, lambda: _forecasts(found)),
        "reliability": ("Probability of collapse", True, lambda: _reliability(found)),
        "intervals": ("Intervals and refusals", True, lambda: _intervals(found)),
        "lift-error": (
            "Better than the baselines? Error of retention, models never seen", True,
            lambda: _lift(found, "mae", "strata"),
        ),
        "lift-rank": (
            "Better than the baselines? Order of merges, models never seen", True,
            lambda: _lift(found, "spearman", "strata"),
        ),
        "lift-collapse": (
            "Better than the baselines? Collapse, models never seen", True,
            lambda: _lift(found, "auroc", "strata"),
        ),
        "lift-splits": (
            "Better than the baselines? Every split", True, lambda: _lift(found, "mae", "splits"),
        ),
        "candidates": ("Features at hand, and other laws", True, lambda: _candidates(found)),
        "controls": ("Controls with a known answer", True, lambda: _controls(found)),
        "hypotheses": ("Hypotheses, tested in the open", True, lambda: _hypotheses(found)),
    }  # fmt: skip


def _forecasts(found: Validation) -> _Made:
    from repsim.plots.drawing.validation.forecasts import draw_forecasts
    from repsim.plots.validation.forecasts import prepare_forecasts

    return prepare_forecasts(forecast_rows(found), notes=panel_notes(found)), draw_forecasts


def _reliability(found: Validation) -> _Made:
    from repsim.plots.drawing.validation.reliability import draw_reliability
    from repsim.plots.validation.reliability import prepare_reliability

    notes = reliability_notes(found)
    return prepare_reliability(collapse_rows(found), notes=notes), draw_reliability


def _intervals(found: Validation) -> _Made:
    from repsim.plots.drawing.validation.intervals import draw_intervals
    from repsim.plots.validation.intervals import prepare_intervals

    return prepare_intervals(interval_rows(found)), draw_intervals


def _lift(found: Validation, metric: str, over: str) -> _Made:
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
    return prepare_lift(rows, axis=axis, labels=labels, most=most), draw_lift


def _candidates(found: Validation) -> _Made:
    from repsim.plots.drawing.validation.candidates import draw_candidates
    from repsim.plots.validation.candidates import prepare_candidates

    axis = "mean absolute error of retention, models never seen"
    note = ["95 % intervals, bootstrap over models"]
    if found.rivals(ORACLE):
        note.append("trials: of aligned merges there are none")
    return prepare_candidates(candidate_rows(found), axis=axis, note=note), draw_candidates


def _controls(found: Validation) -> _Made:
    from repsim.plots.drawing.validation.controls import draw_controls
    from repsim.plots.validation.controls import prepare_controls

    return prepare_controls(control_rows(found)), draw_controls


def _hypotheses(found: Validation) -> _Made:
    from repsim.plots.drawing.validation.hypotheses import draw_hypotheses
    from repsim.plots.validation.hypotheses import prepare_hypotheses

    return prepare_hypotheses(hypothesis_rows(found)), draw_hypotheses
