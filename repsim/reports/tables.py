"""The summary of a comparison as rows for a page, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repsim.core import SimilarityTable
from repsim.core.files import written_aside

Row = dict[str, Any]

#: Column -> heading, in the order of the page.
SUMMARY_HEADINGS = {
    "pair": "models",
    "languages": "languages",
    "pairing": "pairing",
    "label": "measure",
    "middle": "middle layer",
    "interval": "interval",
    "null": "null 95 %",
    "middle_partial": "covariates removed",
    "matched_mean": "mean, matched depth",
    "best": "best",
    "best_layers": "at layers",
    "best_p_adjusted": "p, corrected",
    "n": "n",
}


def summary_rows(table: SimilarityTable) -> list[Row]:
    """One row per pair and measure, with the fields of `SUMMARY_HEADINGS` and `measure`."""
    declared = table.info.get("measures", {})
    rows = []
    for row in table.summary():
        spec = declared.get(row["measure"], {})
        arrow = {"similarity": "↑", "distance": "↓"}.get(spec.get("direction", ""), "")
        a, b = row["model_a"], row["model_b"]
        spoken = (row["language_a"], row["language_b"])
        rows.append(
            {
                "pair": a if a == b else f"{a} ↔ {b}",
                "languages": spoken[0] if spoken[0] == spoken[1] else " ↔ ".join(spoken),
                "pairing": row["pairing"],
                "measure": row["measure"],
                "label": f"{spec.get('label', row['measure'])} {arrow}".strip(),
                "middle": row["middle"],
                "interval": _interval(row["middle_ci_low"], row["middle_ci_high"]),
                "null": row["middle_null_q95"],
                "middle_partial": row["middle_partial"],
                "matched_mean": row["matched_mean"],
                "best": row["best"],
                "best_layers": _layers(row["best_layer_a"], row["best_layer_b"]),
                "best_p_adjusted": row["best_p_adjusted"],
                "n": row["n"],
            }
        )
    return rows


def _interval(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def _layers(a: int | None, b: int | None) -> str | None:
    return None if a is None or b is None else f"{a}, {b}"


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def write_summary_csv(rows: Sequence[Row], path: Path) -> Path:
    """Write the rows as CSV with full precision; missing numbers are empty."""
    with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, [*SUMMARY_HEADINGS, "measure"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def markdown_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table.

    Example:
        >>> print(markdown_table([]).splitlines()[0][:22])
        | models | languages |
    """
    lines = [
        "| " + " | ".join(SUMMARY_HEADINGS.values()) + " |",
        "|" + "---|" * len(SUMMARY_HEADINGS),
    ]
    for row in rows:
        cells = [_text(row[key]).replace("|", "\\|") for key in SUMMARY_HEADINGS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↔": r"$\leftrightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
}


def latex_escape(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    Example:
        >>> latex_escape("a_b & 5 %")
        'a\\_b \\& 5 \\%'
    """
    return "".join(_LATEX.get(character, character) for character in text)


def latex_table(rows: Sequence[Row]) -> str:
    """The rows as a `booktabs` table, ready to be included in a paper."""
    columns = "".join("l" if i < 4 else "r" for i in range(len(SUMMARY_HEADINGS)))
    lines = [r"\begin{tabular}{" + columns + "}", r"\toprule"]
    lines.append(" & ".join(map(latex_escape, SUMMARY_HEADINGS.values())) + r" \\")
    lines.append(r"\midrule")
    for row in rows:
        cells = [latex_escape(_text(row[key])) for key in SUMMARY_HEADINGS]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])
