"""Build the report of a comparison: one page to send, and beside it everything that is in it.

`report.html` is a single file: it opens from disk, needs no network and no JavaScript, prints, and
stays under 3 MB. `report.md`, `tables/` and `figures/` hold the same for papers and programs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repsim.core import SimilarityTable
from repsim.core.files import write_json, write_text, written_aside
from repsim.reports.figures import Picture, draw_figures
from repsim.reports.findings import findings, label_of, main_measure
from repsim.reports.tables import (
    SUMMARY_HEADINGS,
    latex_table,
    markdown_table,
    summary_rows,
    write_summary_csv,
)

#: Columns that the table of the main measure does without: its heading and languages say as much.
SAID_ABOVE = {"label", "pairing", "n"}
#: A page above this size crashes mail programs and slow browsers.
MAX_BYTES = 3_000_000


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
    table.to_csv(folder / "tables" / "similarity.csv")
    rows = summary_rows(table)
    write_summary_csv(rows, folder / "tables" / "summary.csv")
    write_text(folder / "tables" / "summary.tex", latex_table(rows))
    pictures, missing = draw_figures(table, folder / "figures")
    content = _content(table, rows, pictures) | {"missing": missing}
    write_json(folder / "report.json", {k: v for k, v in content.items() if k != "pictures"})
    write_text(folder / "report.md", _render("report.md.j2", content, escape=False))
    return _write_page(folder / "report.html", content)


def _content(
    table: SimilarityTable, rows: list[dict[str, Any]], pictures: list[Picture]
) -> dict[str, Any]:
    """Everything that the templates show."""
    info = table.info
    found = findings(table)
    return {
        "title": "Similarity of " + ", ".join(table.unique("model_a", "model_b")),
        "results": [f.text for f in found if f.kind == "result"],
        "warnings": [f.text for f in found if f.kind == "warning"],
        "headings": SUMMARY_HEADINGS,
        "main_headings": {k: v for k, v in SUMMARY_HEADINGS.items() if k not in SAID_ABOVE},
        "main_label": label_of(table, main_measure(table)),
        "rows": rows,
        "main_rows": [row for row in rows if row["measure"] == main_measure(table)],
        "markdown_table": markdown_table(rows),
        "pictures": pictures,
        "measures": list(info.get("measures", {}).values()),
        "models": list(info.get("models", {}).values()),
        "corpus": info.get("corpus", {}),
        "statistics": info.get("statistics", {}),
        "extraction": info.get("extraction", {}),
        "environment": info.get("environment", {}),
        "cells": len(table),
        "n": sorted({int(n) for n in table.column("n")}),
    }


def _render(template: str, content: dict[str, Any], *, escape: bool) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("repsim.reports"),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = _number
    environment.filters["sentence"] = _sentence
    return environment.get_template(template).render(content)


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{round(value, 3) + 0.0:.3f}" if isinstance(value, float) else str(value)


def _sentence(text: str) -> str:
    """Text with a capital at its beginning and a full stop at its end."""
    text = text.strip()
    if not text:
        return ""
    # A formula such as "tr(KL)" keeps its small letter.
    word = text.split()[0]
    start = text[0].upper() + text[1:] if word.isalpha() and len(word) > 3 else text
    return start if start.endswith((".", "!", "?")) else start + "."


def _write_page(path: Path, content: dict[str, Any]) -> Path:
    """Render the page; leave out the last pictures if it would grow too large, and say so."""
    pictures: list[Picture] = list(content["pictures"])
    left_out: list[str] = []
    while True:
        page = _render(
            "report.html.j2", {**content, "pictures": pictures, "left_out": left_out}, escape=True
        )
        if len(page.encode()) <= MAX_BYTES or not pictures:
            break
        left_out.insert(0, pictures.pop().paths[0].name)
    with written_aside(path) as aside:
        aside.write_text(page, encoding="utf-8")
    return path
