"""A table of a report: rows for the page, CSV in full precision, Markdown and LaTeX."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repsim.core.files import write_text, written_aside

Row = dict[str, Any]

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
    "−": "$-$",
    "–": "--",
}


@dataclasses.dataclass(frozen=True)
class ReportTable:
    """One table.

    Attributes:
        name: Stem of its files.
        title: Heading.
        headings: Column -> heading; columns of the rows that have none are in the CSV alone.
        rows: Rows with those columns; None where there is no number.
    """

    name: str
    title: str
    headings: Mapping[str, str]
    rows: tuple[Row, ...]

    def write(self, folder: Path) -> list[Path]:
        """Write CSV in full precision, Markdown and a LaTeX `booktabs` table."""
        target = folder / f"{self.name}.csv"
        columns = dict.fromkeys([*self.headings, *(key for row in self.rows for key in row)])
        with written_aside(target) as aside, aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(self.rows)
        texts = {"md": self.markdown(), "tex": self.latex()}
        for suffix, text in texts.items():
            write_text(folder / f"{self.name}.{suffix}", text)
        return [target, *(folder / f"{self.name}.{suffix}" for suffix in texts)]

    def markdown(self) -> str:
        """As Markdown.

        Example:
            >>> print(ReportTable("t", "T", {"a": "A"}, ({"a": -0.5},)).markdown(), end="")
            | A |
            | --- |
            | −0.500 |
        """
        lines = [list(self.headings.values()), ["---"] * len(self.headings)]
        lines += [
            [cell(row[key]).replace("|", "\\|") for key in self.headings] for row in self.rows
        ]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def latex(self) -> str:
        """As LaTeX, ready to be included."""
        numeric = [
            all(isinstance(row[key], int | float | None) for row in self.rows)
            for key in self.headings
        ]
        lines = [
            r"\begin{tabular}{" + "".join("r" if n else "l" for n in numeric) + "}",
            r"\toprule",
        ]
        lines += [" & ".join(map(latex_escape, self.headings.values())) + r" \\", r"\midrule"]
        for row in self.rows:
            lines.append(" & ".join(latex_escape(cell(row[k])) for k in self.headings) + r" \\")
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


def latex_escape(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    Example:
        >>> latex_escape("a_b & 5 %")
        'a\\_b \\& 5 \\%'
    """
    return "".join(_LATEX.get(character, character) for character in text)
