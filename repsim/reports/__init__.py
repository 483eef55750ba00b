"""Reports: a page is a list of text, table and figure blocks; one writer per format."""

from repsim.reports.blocks import (
    Details,
    Entries,
    Entry,
    FigureBlock,
    Items,
    Page,
    Section,
    TableBlock,
    Text,
)
from repsim.reports.comparison import write_report
from repsim.reports.page import write_page

__all__ = [
    "Details", "Entries", "Entry", "FigureBlock", "Items", "Page", "Section", "TableBlock", "Text",
    "write_page", "write_report",
]  # fmt: skip
