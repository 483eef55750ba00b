"""Standing texts of pages: definitions and notes, kept in `glossary.yaml`."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

from repsim.reports.blocks import Entries, Entry, Text


@functools.cache
def _texts() -> dict[str, Any]:
    import yaml

    file = resources.files("repsim.reports").joinpath("glossary.yaml")
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")))


def note(name: str, **values: Any) -> Text:
    """A standing note, its gaps filled."""
    return Text(_texts()[name].format(**values), "note")


def definitions(page: str, **values: Any) -> Entries:
    """The definitions of one kind of page, their gaps filled."""
    terms = _texts()[page]
    return Entries([Entry(term, text.format(**values)) for term, text in terms.items()])
