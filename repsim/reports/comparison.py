"""Build the report of a comparison: one page to send, and beside it everything that is in it.

`report.html` is a single file: it opens from disk, needs no network and no JavaScript, prints, and
stays under 3 MB. `report.md`, `tables/` and `figures/` hold the same for papers and programs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repsim.core import SimilarityTable
from repsim.core.files import write_json, write_text
from repsim.reports.comparison_figures import comparison_figures
from repsim.reports.comparison_findings import findings, label_of, main_measure
from repsim.reports.comparison_tables import SUMMARY_HEADINGS, summary_table
from repsim.reports.page import draw_pictures, filled, write_page
from repsim.reports.table import ReportTable, cell

#: Columns that the table of the main measure does without: its heading and languages say as much.
SAID_ABOVE = {"label", "pairing", "n"}


def write_report(table: SimilarityTable, folder: str | Path) -> Path:
    """Write the report of a table into a folder.

    Args:
        table: What was measured; its `info` becomes the method and provenance sections.
        folder: Where to write; made if missing.

    Returns:
        Path of `report.html`.

    Example:
        >>> write_report.__name__  # see `repsim compare -o DIR`, or table.to_report("DIR")
        'write_report'
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table.save(folder / "similarity.parquet")
    table.save(folder / "tables" / "similarity.csv")
    summary = summary_table(table)
    summary.write(folder / "tables")
    pictures, missing = draw_pictures(comparison_figures(table), folder / "figures")
    content = _content(table, summary) | {"missing": missing}
    write_json(folder / "report.json", content)
    shown = content | {"pictures": pictures, "cell": cell}
    write_text(folder / "report.md", filled("comparison.md.j2", shown, escape=False))
    return write_page(folder / "report.html", "comparison.html.j2", shown)


def _content(table: SimilarityTable, summary: ReportTable) -> dict[str, Any]:
    """What the templates show beside the pictures."""
    info = table.info
    found = findings(table)
    return {
        "title": "Similarity of " + ", ".join(table.unique("model_a", "model_b")),
        "results": [f.text for f in found if f.kind == "result"],
        "warnings": [f.text for f in found if f.kind == "warning"],
        "headings": SUMMARY_HEADINGS,
        "main_headings": {k: v for k, v in SUMMARY_HEADINGS.items() if k not in SAID_ABOVE},
        "main_label": label_of(table, main_measure(table)),
        "rows": list(summary.rows),
        "main_rows": [row for row in summary.rows if row["measure"] == main_measure(table)],
        "markdown_table": summary.markdown(),
        "measures": list(info.get("measures", {}).values()),
        "models": list(info.get("models", {}).values()),
        "corpus": info.get("corpus", {}),
        "statistics": info.get("statistics", {}),
        "extraction": info.get("extraction", {}),
        "environment": info.get("environment", {}),
        "cells": len(table),
        "n": sorted({int(n) for n in table.column("n")}),
    }
