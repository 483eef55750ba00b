"""Numbers for readers: a true minus sign, and no share that claims more than was counted."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def number(value: float, digits: int = 2) -> str:
    """A number with a true minus sign; a dash where there is none, and no minus before a zero."""
    if value != value:
        return "–"
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")


def brief(value: float) -> str:
    """Three significant digits with a true minus sign."""
    return f"{value:.3g}".replace("-", "−")


def percent(share: float) -> str:
    """A share in percent: one digit more near the ends, 0 and 100 only where exact."""
    if share != share:
        return "–"
    value = 100 * share
    if 0 < value < 0.05:
        return "<0.1 %"
    if 99.95 <= value < 100:
        return ">99.9 %"
    near_an_end = 0 < value < 0.95 or 99 < value < 100
    return f"{value:.1f} %" if near_an_end else f"{value:.0f} %"


#: Nouns that are counted on screens and pages.
_COUNTED = re.compile(
    r"(?<![\w.,/])1 (activation|arm|block|cell|checkpoint|comparison|control|document|feature|file|"
    r"forecast|group|item|language|layer|measure|merge|method|model|pair|panel|parameter|parent|"
    r"part|row|run|sentence|shuffle|split|step|tensor|token|unit|value|window)s\b"
)


def singular(text: str) -> str:
    """Text in which one of a kind is no plural: every screen and page passes through here."""
    return _COUNTED.sub(r"1 \1", text)


def listed(items: Sequence[str]) -> str:
    """Items as prose."""
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " and " + items[-1]


def markdown_text(text: str) -> str:
    r"""Text that Markdown prints as it is, in tables and links too; `code` stays code."""
    plain = " ".join(text.splitlines()).replace("<", "&lt;")
    marks = r"\[[-−–0-9., ]+\](?![(\[:])|[|*\[\]]"
    return re.sub(marks, lambda m: m[0] if len(m[0]) > 1 else "\\" + m[0], plain)


def markdown_name(name: str) -> str:
    r"""A name as Markdown prints it: as `markdown_text`, and what would begin code is escaped."""
    marks = r"([`~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))"
    return re.sub(marks, r"\\\1", markdown_text(name))


def markdown_lines(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, its cells as they are."""
    lines = (headings, ["---"] * len(headings), *rows)
    return [f"| {' | '.join(line)} |" for line in lines]


def html_table(
    columns: Sequence[str], rows: Sequence[Mapping[str, Any]], total: int | None = None
) -> str:
    """Rows as an HTML table for notebooks; names are escaped, numbers have three decimals."""
    from html import escape

    if not rows:
        return "<p>empty table</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_shown(row[name]))}</td>" for name in columns) + "</tr>"
        for row in rows
    )
    more = f"<p>{total:,} rows</p>" if total is not None and total > len(rows) else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


class ShownAsTable:
    """A result that a notebook shows as a table: what it says of itself, or its fields."""

    def _repr_html_(self) -> str:
        describe = getattr(self, "describe", None)
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        said = describe() if describe else {f.name: getattr(self, f.name) for f in fields}
        told = {
            name: value
            for name, value in said.items()
            if value == value and value not in ("", (), None)
        }
        name = type(self).__name__
        return html_table([name, " "], [{name: what, " ": value} for what, value in told.items()])


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(_shown(item) or "–" for item in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)
