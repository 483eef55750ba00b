"""What a page is made of: text, tables and figures, in sections."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

Row = Mapping[str, Any]
#: Longer tables are folded on a page.
LONG = 20


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `code` in backquotes.

    Args:
        text: What it says.
        style: "plain", "note" (small and grey), "command" or "listing" (as typed).
    """

    kind: ClassVar = "text"
    text: str
    style: str = "plain"


@dataclasses.dataclass(frozen=True)
class Items:
    """A list of statements.

    Args:
        items: One statement each.
        style: "findings", "warnings" (a box of its own) or "note" (small and grey).
    """

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
    """Terms with their definitions, or claims with verdicts.

    Args:
        entries: In order.
    """

    kind: ClassVar = "entries"
    entries: Sequence[Entry]


@dataclasses.dataclass(frozen=True)
class TableBlock:
    """A table.

    Args:
        name: Stem of its CSV, Markdown and LaTeX files; empty if it has none.
        title: Heading.
        headings: Column -> heading; columns of the rows that have none are in the CSV alone.
        rows: Rows with those columns; None where there is no number.
        folded: Whether it is folded on the page; by default if it is long.
        whole: Columns whose cells are never broken.
    """

    kind: ClassVar = "table"
    name: str
    title: str
    headings: Mapping[str, str]
    rows: Sequence[Row]
    folded: bool | None = None
    whole: frozenset[str] = frozenset()

    @property
    def is_folded(self) -> bool:
        """Whether a page shows its title only until it is opened."""
        return len(self.rows) > LONG if self.folded is None else self.folded


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
    """A figure that was drawn: its files lie in `figures/`, `shown` is the one on the page."""

    kind: ClassVar = "picture"
    name: str
    title: str
    caption: str
    shown: str


@dataclasses.dataclass(frozen=True)
class Details:
    """Blocks that are folded until the reader opens them.

    Args:
        title: What is folded.
        blocks: Text, tables.
    """

    kind: ClassVar = "details"
    title: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page, which the navigation at the top leads to.

    Args:
        title: Heading.
        blocks: What it holds; empty sections are left out.
    """

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
        beside: Tables that are written as CSV and not shown.
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
    beside: Sequence[TableBlock] = ()
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def heading_of(table: TableBlock) -> str:
    """Title of a table, with its size where it is folded."""
    return f"{table.title} ({len(table.rows)} rows)" if table.is_folded else table.title


def software(environment: Mapping[str, Any]) -> list[Block]:
    """Versions, commit, platform and command of a run."""
    if not environment:
        return []
    pieces = [f"{name} {version}" for name, version in environment.get("versions", {}).items()]
    pieces += [f"commit `{environment['git']}`"] if environment.get("git") else []
    pieces.append(str(environment.get("platform", "")))
    return [Text(" · ".join(pieces)), Text(str(environment.get("command", "")), "command")]
