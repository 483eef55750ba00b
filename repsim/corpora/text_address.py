"""Where training text lies and which of its fields are read: `PATH?text=content&id=url`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from repsim.core.errors import InputError, UsageError, unknown_name
from repsim.corpora.languages import parse_language

HUB = "hub:"


@dataclasses.dataclass(frozen=True)
class TextAddress:
    """One source of training text, as a single line of a configuration states it."""

    location: str
    text: str = "text"
    id: str = "id"
    language: str = ""
    duplicates: str = "drop"

    @classmethod
    def parse(cls, spec: str) -> TextAddress:
        """Read an address; what stands behind `?` are `KEY=VALUE`, joined by `&`."""
        location, _, query = spec.partition("?")
        if not location:
            raise UsageError(f"'{spec}' names no text", hint="'bible', a path, or hub:NAME")
        options = dict(parse_qsl(query, keep_blank_values=True))
        known = [field.name for field in dataclasses.fields(cls)[1:]]
        for key in options:
            if key not in known:
                raise unknown_name(f"option of the text '{location}'", key, known)
        if options.get("duplicates", "drop") not in ("drop", "keep"):
            raise UsageError(f"'{spec}': duplicates are 'drop' or 'keep'")
        return cls(location, **options)

    @property
    def is_hub(self) -> bool:
        """Whether it is a data set that `datasets` opens."""
        return self.location.startswith(HUB)

    def columns(self, have: list[str], place: str) -> list[str]:
        """Those of a table's columns that are read."""
        for wanted in filter(None, (self.text, self.language)):
            if wanted not in have:
                raise InputError(
                    f"{place} has no field '{wanted}' with a string",
                    hint=f"it has: {', '.join(have)}; choose with ?text=NAME",
                )
        return [name for name in dict.fromkeys((self.text, self.id, self.language)) if name in have]

    def document(
        self, row: Mapping[str, Any], number: str, place: str, language: str
    ) -> tuple[str, str] | None:
        """Id and text of a record; None if it has no text or is in another language."""
        if self.language and not _is_language(row.get(self.language), language):
            return None
        text = row.get(self.text)
        if not isinstance(text, str):
            raise InputError(
                f"{place} has no field '{self.text}' with a string",
                hint=f"it has: {', '.join(row)}; choose with ?text=NAME",
            )
        if not text.strip():
            return None
        named = row.get(self.id)
        return str(number if named is None else named), text


@functools.lru_cache(maxsize=4096)
def _is_language(value: str | None, language: str) -> bool:
    """Whether a record's own word for its language means a FLORES-style code."""
    if value == language:
        return True
    said, wanted = parse_language(str(value)), parse_language(language)
    return said is not None and wanted is not None and said.fits(wanted)
