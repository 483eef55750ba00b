"""One writer of tables: CSV in full precision, Markdown, LaTeX."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from repsim.core.files import write_text
from repsim.core.formatting import markdown_lines, markdown_text, number
from repsim.reports.blocks import TableBlock

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "↔": r"$\leftrightarrow$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "−": "$-$", "–": "--",
}  # fmt: skip


def write_table(block: TableBlock, folder: Path) -> None:
    """Write a table as CSV in full precision, as Markdown and as a LaTeX `booktabs` table."""
    block.table.save(folder / f"{block.name}.csv")
    write_text(folder / f"{block.name}.md", markdown_table(block))
    write_text(folder / f"{block.name}.tex", latex_table(block))


def headings(block: TableBlock) -> list[str]:
    """Headings of the columns of the page."""
    return [column.heading or column.meaning for column in block.shown.values()]


def cells(block: TableBlock) -> list[list[str]]:
    """Rows of the page as readers see them."""
    return [
        [cell(row[name], column.form) for name, column in block.shown.items()] for row in block.rows
    ]


def markdown_table(block: TableBlock) -> str:
    r"""A table as Markdown."""
    rows = ([markdown_text(text) for text in line] for line in cells(block))
    return "\n".join([*markdown_lines(headings(block), rows), ""])


def latex_table(block: TableBlock) -> str:
    """A table as LaTeX, ready to be included."""
    body = [headings(block), *cells(block)]
    first, *rest = [" & ".join(map(latex_escape, line)) + r" \\" for line in body]
    columns = "".join(
        "l" if one.kind == "string" or one.form else "r" for one in block.shown.values()
    )
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", first, r"\midrule", *rest]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def cell(value: Any, form: str = "") -> str:
    """A value as readers see it; `form` is that of its column."""
    if value is None:
        return "–"
    if form == "yes or no":
        return "yes" if value else "no"
    if isinstance(value, float):
        return "never" if math.isinf(value) else number(value, 3)
    return str(value).replace("-", "−") if isinstance(value, int) else str(value)


def exact(value: Any) -> str:
    """A number in full where its cell is rounded, for hovering and sorting; empty elsewhere."""
    return f"{value:.6g}" if isinstance(value, float) and math.isfinite(value) else ""


def latex_escape(text: str) -> str:
    r"""Text that LaTeX prints as it is."""
    return "".join(_LATEX.get(character, character) for character in text)
