"""JSON lines: one object per sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError
from repsim.corpora.languages import choose_languages, parse_language
from repsim.corpora.rows import ParallelRows, Request, text_of
from repsim.corpora.text_files import read_lines

_FIXED = ("id", "split", "document")


def read_jsonl(request: Request) -> ParallelRows:
    """Read one object per line: `id`, `split`, `document` (each optional) and the languages."""
    path = Path(request.location)
    objects = read_objects(path)
    texts = [_texts(record, path, i + 1) for i, record in enumerate(objects)]
    available = list(dict.fromkeys(code for row in texts for code in row))
    languages = choose_languages(request.languages, available, where=f"'{path}'")
    ignored = sorted({key for record in objects for key in record if _is_ignored(key, record)})
    return ParallelRows(
        cells={
            label: [
                text_of(row.get(code), f"file '{path}', line {i}", code)
                for i, row in enumerate(texts, start=1)
            ]
            for label, code in languages.items()
        },
        ids=_ids(objects, path),
        documents=_optional(objects, "document"),
        splits=_optional(objects, "split"),
        place=lambda label, row: f"file '{path}', line {row + 1}",
        source=f"file {path}",
        notes=[f"fields that are not read: {', '.join(ignored)}"] if ignored else [],
    )


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, in order."""
    lines = read_lines(path)
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InputError(f"file '{path}' is empty")
    objects = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = str(error)
            if isinstance(error, json.JSONDecodeError):
                why = f"{error.msg} at column {error.colno}"
            what = f"not JSON: {why}" if line.strip() else "blank"
            raise InputError(f"file '{path}', line {number}: {what}") from None
        if not isinstance(record, dict):
            raise InputError(
                f"file '{path}', line {number}: a {type(record).__name__}, not an object",
                hint='one object per line: {"id": "1", "eng_Latn": "...", "deu_Latn": "..."}',
            )
        objects.append(record)
    return objects


def _texts(record: dict[str, Any], path: Path, number: int) -> dict[str, Any]:
    if "translation" not in record:
        return {k: v for k, v in record.items() if k not in _FIXED and parse_language(k)}
    texts = record["translation"]
    if not isinstance(texts, dict):
        raise InputError(
            f"file '{path}', line {number}: 'translation' is {type(texts).__name__}, not an object "
            "of languages"
        )
    return texts


def _is_ignored(key: str, record: dict[str, Any]) -> bool:
    if key in (*_FIXED, "translation"):
        return False
    return "translation" in record or parse_language(key) is None


def _ids(objects: list[dict[str, Any]], path: Path) -> list[str]:
    without = [i for i, record in enumerate(objects, start=1) if record.get("id") is None]
    if len(without) == len(objects):
        return [str(i) for i in range(1, len(objects) + 1)]
    if without:
        raise InputError(f"file '{path}', line {without[0]}: no id, where other lines have one")
    return [str(record["id"]).strip() for record in objects]


def _optional(objects: list[dict[str, Any]], key: str) -> list[str]:
    values = [record.get(key) for record in objects]
    if all(value is None for value in values):
        return []
    return ["" if value is None else str(value).strip() for value in values]
