"""A table of similarities as something to send: HTML in one file, Markdown, CSV, LaTeX, JSON."""

from repsim.reports.comparison import write_report

__all__ = ["write_report"]
