"""Sentences that come one language at a time, put side by side by their ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from repsim.core.errors import InputError
from repsim.corpora.rows import ParallelRows, text_of

# FLORES-200 and FLORES+ name the page that a sentence was taken from.
_DOCUMENT_FIELDS = ("document", "url", "URL")


@dataclasses.dataclass(frozen=True)
class Record:
    """One sentence of one language."""

    id: str | None
    text: str
    document: str
    place: str


def record_of(fields: Mapping[str, Any], place: str, text_field: str = "text") -> Record:
    """A record from named fields: `id`, the text, and a document under one of its usual names."""
    if text_field not in fields:
        raise InputError(f"{place}: no field '{text_field}'", hint=f"fields: {', '.join(fields)}")
    own = fields.get("id")
    document = next((fields[k] for k in _DOCUMENT_FIELDS if fields.get(k)), "")
    return Record(
        id=None if own is None else str(own).strip(),
        text=text_of(fields[text_field], place, text_field),
        document=str(document).strip(),
        place=place,
    )


def join_records(
    parts: Mapping[str, Mapping[str, Sequence[Record]]], *, source: str
) -> ParallelRows:
    """Join the languages of each split, then put the splits one after the other."""
    labels = list(dict.fromkeys(label for part in parts.values() for label in part))
    rows = ParallelRows(
        cells={label: [] for label in labels}, ids=[], place=lambda *_: "", source=source
    )
    places: list[dict[str, str]] = []
    for split, part in parts.items():
        indexed = _by_id(part)
        for own in _in_order([own for records in indexed.values() for own in records]):
            found = {label: records[own] for label, records in indexed.items() if own in records}
            rows.ids.append(f"{split}:{own}" if split else own)
            rows.splits.append(split)
            rows.documents.append(next((r.document for r in found.values() if r.document), ""))
            places.append({label: record.place for label, record in found.items()})
            for label in labels:
                rows.cells[label].append(found[label].text if label in found else "")
    if not any(rows.splits):
        rows.splits.clear()

    def place(label: str, row: int) -> str:
        known = places[row]
        return known.get(label) or f"{next(iter(known.values()))} (not in {label})"

    rows.place = place
    return rows


def _in_order(ids: Sequence[str]) -> list[str]:
    """Each id once: numbers by size, others as they first occur."""
    distinct = dict.fromkeys(ids)
    return sorted(distinct, key=int) if all(own.isdecimal() for own in distinct) else [*distinct]


def _by_id(part: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, Record]]:
    """Language label -> id -> record."""
    numbered = {label: all(r.id is None for r in records) for label, records in part.items()}
    if any(numbered.values()):
        _check_same_length(part)
    indexed: dict[str, dict[str, Record]] = {}
    for label, records in part.items():
        indexed[label] = {}
        for position, record in enumerate(records, start=1):
            own = str(position) if all(numbered.values()) else record.id
            if own is None or own == "":
                raise InputError(f"{record.place}: no id, where others have one")
            if own in indexed[label]:
                raise InputError(
                    f"{record.place}: id '{own}' is used twice in {label}, first at "
                    f"{indexed[label][own].place}"
                )
            indexed[label][own] = record
    return indexed


def _check_same_length(part: Mapping[str, Sequence[Record]]) -> None:
    (first, records), *others = part.items()
    for label, other in others:
        if len(other) != len(records):
            raise InputError(
                f"misaligned: {len(records)} sentences in {first} "
                f"({_source(records)}) and {len(other)} in {label} ({_source(other)})",
                hint="without ids, sentence i must be the same in every language",
            )


def _source(records: Sequence[Record]) -> str:
    return records[-1].place if records else "none"
