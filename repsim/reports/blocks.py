"""What a page is made of: text, tables and figures, in sections."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from repsim.core.table import Column, Table
from repsim.plots.drawing.hover import Spot
from repsim.stats.statements import Statement

Row = Mapping[str, Any]
#: Longer tables are folded on a page.
LONG = 20


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `style` "plain", "note" (small and grey), "command" or "listing" (as typed)."""

    kind: ClassVar = "text"
    text: str
    style: str = "plain"


@dataclasses.dataclass(frozen=True)
class Items:
    """A list of statements; `style` "findings", "warnings" (a box of its own) or "note" (grey)."""

    kind: ClassVar = "items"
    items: Sequence[str]
    style: str = "findings"


class Entry(NamedTuple):
    """A term and its text; a verdict on it before, a grey note beside it, a source after it."""

    term: str
    text: str
    verdict: str = ""
    note: str = ""
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Entries:
    """Terms with their definitions, or claims with verdicts, in order."""

    kind: ClassVar = "entries"
    entries: Sequence[Entry]


@dataclasses.dataclass(frozen=True)
class TableBlock:
    """A table, with columns that state how they are shown (`repsim.core.table.Column`).

    Args:
        name: Stem of its CSV, Markdown and LaTeX files; empty if it has none.
        title: Heading.
        table: Its rows.
        columns: Columns that the page shows, all declared ones if empty; the CSV has all.
        folded: Whether it is folded on the page; by default if it is long.
    """

    kind: ClassVar = "table"
    name: str
    title: str
    table: Table
    columns: Sequence[str] = ()
    folded: bool | None = None

    @functools.cached_property
    def shown(self) -> dict[str, Column]:
        """Columns of the page."""
        return {name: self.table.declared(name) for name in self.columns or self.table.COLUMNS}

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Rows with all columns; None where there is no value."""
        return list(self.table.rows())

    @property
    def is_folded(self) -> bool:
        """Whether a page shows its title only until it is opened."""
        return len(self.table) > LONG if self.folded is None else self.folded


def declared(columns: Mapping[str, tuple[str, ...]], rows: Iterable[Row]) -> Table:
    """Rows as a table of these columns, infinite numbers kept, for a table that one page has."""
    kind = {"SCHEMA": "repsim/shown/1", "STEM": "table", "COLUMNS": columns, "INFINITE": True}
    made: type[Table] = type("ShownTable", (Table,), kind)
    return made(rows)


@dataclasses.dataclass(frozen=True)
class FigureBlock:
    """A figure that a page would like to show; it is drawn when the page is written.

    Args:
        name: Stem of its files.
        title: Heading.
        figure: Its name in `repsim.plots.FIGURES`.
        source: The table, atlas or rows that it reads.
        options: Further options of its numbers.
    """

    kind: ClassVar = "figure"
    name: str
    title: str
    figure: str
    source: Any
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure that was drawn: its files, the one on the page, and its spots for hovering."""

    kind: ClassVar = "picture"
    name: str
    title: str
    caption: str
    shown: str
    size: tuple[float, float] = (1.0, 1.0)
    spots: Sequence[Spot] = ()


@dataclasses.dataclass(frozen=True)
class Details:
    """Blocks that are folded until the reader opens them."""

    kind: ClassVar = "details"
    title: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page, which the navigation at the top leads to; left out if it is empty."""

    kind: ClassVar = "section"
    title: str
    blocks: Sequence[Block]


Block = Text | Items | Entries | TableBlock | FigureBlock | Picture | Details | Section


@dataclasses.dataclass(frozen=True)
class Page:
    """A report.

    Args:
        title: Heading.
        blocks: Sections.
        kicker: What kind of report it is, above the heading.
        lead: The grey line beneath the heading.
        beside: Stem -> table that is written as CSV and not shown.
        facts: What programs may want to know, for the JSON document.

    Example:
        >>> page = Page("Two models", [Section("Found", [Text("They are alike.")])])
        >>> page.blocks[0].title
        'Found'
    """

    title: str
    blocks: Sequence[Section]
    kicker: str = "repsim"
    lead: str = ""
    beside: Mapping[str, Table] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


#: Columns of the ends of an interval, for a table of which rows state `low` and `high`.
ENDS = {
    "low": ("float", "lower end of its 95 % interval over models", "95 % low"),
    "high": ("float", "upper end", "95 % high"),
}


def said_of(found: Sequence[Statement]) -> tuple[Entries, list[Block]]:
    """Claims with their verdicts; then what else was found, and the limits of it."""
    claims = [Entry(one.claim, one.text, one.verdict) for one in found if one.claim]
    plain = [one for one in found if not one.claim]
    results = [one.text for one in plain if one.kind == "result"]
    limits = [one.text for one in found if one.kind == "warning"]
    return Entries(claims), [Items(results), Items(limits, "warnings")]


def heading_of(table: TableBlock) -> str:
    """Title of a table, with its size where it is folded."""
    return f"{table.title} ({len(table.table)} rows)" if table.is_folded else table.title


def software(environment: Mapping[str, Any]) -> list[Block]:
    """Versions, commit, platform and command of a run."""
    if not environment:
        return []
    pieces = [f"{name} {version}" for name, version in environment.get("versions", {}).items()]
    pieces += [f"commit `{environment['git']}`"] if environment.get("git") else []
    pieces.append(str(environment.get("platform", "")))
    return [Text(" · ".join(pieces)), Text(str(environment.get("command", "")), "command")]
