"""Build the report of a predictor's validation: one page to send, and beside it all that is in it.

`report.html` is a single file: it opens from disk, needs no network and no JavaScript, prints, and
stays under 3 MB. `report.md`, `report.json`, `tables/` and `figures/` hold the same for papers and
programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from repsim.core.files import write_json, write_text
from repsim.reports.page import draw_pictures, filled, write_page
from repsim.reports.table import cell
from repsim.reports.validation_figures import validation_figures
from repsim.reports.validation_findings import findings, headline, warnings
from repsim.reports.validation_rows import Validation, verdicts
from repsim.reports.validation_tables import goal_table, validation_tables, write_whole

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
    pictures, missing = draw_pictures(validation_figures(found), target / "figures")
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
    shown = {**content, "goals": goals, "tables": tables, "pictures": pictures, "cell": cell,
             "long": LONG}  # fmt: skip
    write_text(target / "report.md", filled("validation.md.j2", shown, escape=False))
    return write_page(target / "report.html", "validation.html.j2", shown)
