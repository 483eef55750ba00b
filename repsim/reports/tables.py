"""One writer of tables: CSV in full precision, Markdown, LaTeX."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from repsim.core.aside import written_aside
from repsim.core.files import write_text
from repsim.reports.blocks import TableBlock

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "↔": r"$\leftrightarrow$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "−": "$-$", "–": "--",
}  # fmt: skip


def write_table(table: TableBlock, folder: Path) -> None:
    """Write a table as CSV, Markdown and a LaTeX `booktabs` table."""
    write_csv(table, folder)
    write_text(folder / f"{table.name}.md", markdown_table(table))
    write_text(folder / f"{table.name}.tex", latex_table(table))


def write_csv(table: TableBlock, folder: Path) -> None:
    """Write a table in full precision, with the columns that have no heading."""
    columns = dict.fromkeys([*table.headings, *(key for row in table.rows for key in row)])
    target = folder / f"{table.name}.csv"
    with written_aside(target) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(table.rows)


def markdown_table(table: TableBlock) -> str:
    r"""A table as Markdown.

    Example:
        >>> print(markdown_table(TableBlock("t", "T", {"a": "A"}, [{"a": -0.5}])), end="")
        | A |
        | --- |
        | −0.500 |
    """
    lines = [list(table.headings.values()), ["---"] * len(table.headings)]
    lines += [[markdown_escape(cell(row[key])) for key in table.headings] for row in table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex_table(table: TableBlock) -> str:
    """A table as LaTeX, ready to be included."""
    numeric = [
        all(isinstance(row[key], int | float | None) for row in table.rows)
        for key in table.headings
    ]
    body = [list(table.headings.values())]
    body += [[cell(row[key]) for key in table.headings] for row in table.rows]
    first, *rest = [" & ".join(map(latex_escape, line)) + r" \\" for line in body]
    columns = "".join("r" if number else "l" for number in numeric)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", first, r"\midrule", *rest]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def cell(value: Any) -> str:
    """A value as readers see it.

    Example:
        >>> cell(-0.12345), cell(None), cell(3), cell(float("inf")), cell("leave-models-out")
        ('−0.123', '–', '3', 'never', 'leave-models-out')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        # Adding zero makes 0.000 of what rounds to -0.000.
        return "never" if math.isinf(value) else f"{round(value, 3) + 0.0:.3f}".replace("-", "−")
    return str(value).replace("-", "−") if isinstance(value, int) else str(value)


def markdown_escape(text: str) -> str:
    r"""Text that Markdown prints as it is; `code` stays code.

    Example:
        >>> markdown_escape("<b>a|b</b> *c*")
        '&lt;b>a\\|b&lt;/b> \\*c\\*'
    """
    return text.replace("<", "&lt;").replace("|", r"\|").replace("*", r"\*")


def latex_escape(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    Example:
        >>> latex_escape("a_b & 5 %")
        'a\\_b \\& 5 \\%'
    """
    return "".join(_LATEX.get(character, character) for character in text)
