"""One language's sentences: a plain text file, or lists in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError, UsageError
from repsim.corpora.languages import choose_languages
from repsim.corpora.rows import ParallelRows, Request, text_of
from repsim.corpora.text_files import read_lines

#: Label of text whose language nobody named (ISO 639-2: undetermined).
UNDETERMINED = "und"


def read_plain(request: Request) -> ParallelRows:
    """Read a text file: one sentence a line; where lines are empty, they divide documents."""
    path = Path(request.location)
    lines = read_lines(path)
    kept = [i for i, line in enumerate(lines) if line.strip()]
    if not kept:
        raise InputError(f"file '{path}' holds no text")
    label = _only_language(request.languages, f"'{path}'")
    document, documents = 0, []
    for before, own in zip([kept[0], *kept], kept, strict=False):
        document += own > before + 1
        documents.append(f"document {document + 1}")
    rows = ParallelRows(
        cells={label: [lines[i].strip() for i in kept]},
        ids=[str(i + 1) for i in kept],
        documents=documents if document else [],
        place=lambda _, row: f"file '{path}', line {kept[row] + 1}",
        source=f"file {path}",
    )
    return _undetermined(rows)


def rows_in_memory(
    text: Mapping[str, Sequence[str]] | Sequence[str], languages: Sequence[str] | None
) -> ParallelRows:
    """Sentences of one language, or a mapping from language codes to aligned sentences."""
    if not isinstance(text, Mapping):
        text = {_only_language(languages, "a list of sentences"): text}
    for label, sentences in text.items():
        if isinstance(sentences, str) or not isinstance(sentences, Sequence):
            raise UsageError(
                f"the sentences in {label} are {type(sentences).__name__}",
                hint="a list of strings, the same number in each language",
            )
    lengths = {label: len(sentences) for label, sentences in text.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{n} in {label}" for label, n in lengths.items())
        raise InputError(
            f"misaligned sentences: {listed}", hint="sentence i is the same in every language"
        )
    if not any(lengths.values()):
        raise InputError("there are no sentences", hint="a list of strings")
    chosen = choose_languages(languages, list(text), where="the sentences")
    cells = {
        label: [
            text_of(own, f"sentence {i} in {label}", "it")
            for i, own in enumerate(text[column], start=1)
        ]
        for label, column in chosen.items()
    }
    n = next(iter(lengths.values()))
    return _undetermined(
        ParallelRows(
            cells=cells,
            ids=[str(i) for i in range(1, n + 1)],
            place=lambda label, row: f"sentence {row + 1} in {label}",
            source="sentences in memory",
        )
    )


def rows_of_frame(frame: Any, languages: Sequence[str] | None) -> ParallelRows:
    """A data frame: a column per language; columns `id` and `document` may be there."""
    import pyarrow as pa

    columns = pa.table(frame).to_pydict()
    ids, documents = (columns.pop(name, []) for name in ("id", "document"))
    rows = rows_in_memory(columns, languages)
    return dataclasses.replace(
        rows, ids=list(map(str, ids)) or rows.ids, documents=list(map(str, documents))
    )


def _only_language(languages: Sequence[str] | None, where: str) -> str:
    """The label of text that is in one language."""
    if not languages:
        return UNDETERMINED
    if len(languages) > 1:
        raise UsageError(
            f"{where} is text of one language, {len(languages)} are asked for",
            hint="name its language; several stand in a .tsv, a column each",
        )
    return next(iter(choose_languages(languages, list(languages), where=where)))


def _undetermined(rows: ParallelRows) -> ParallelRows:
    if UNDETERMINED in rows.cells:
        rows.notes.append("nobody said which language the text is in; it is called 'und'")
    return rows
