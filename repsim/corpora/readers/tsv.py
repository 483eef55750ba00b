"""Tab-separated text: a header line, then one sentence per line and one language per column."""

from __future__ import annotations

from pathlib import Path

from repsim.core.errors import InputError
from repsim.corpora.languages import choose_languages, parse_language
from repsim.corpora.rows import ParallelRows, Request
from repsim.corpora.text_files import read_lines

_FIXED = ("id", "split", "document")


def read_tsv(request: Request) -> ParallelRows:
    """Read columns `id`, `split`, `document` (each optional) and one column per language."""
    path = Path(request.location)
    lines = read_lines(path)
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise InputError(f"file '{path}' is empty")
    header = _header(lines[0], path)
    languages = choose_languages(
        request.languages, [c for c in header if c not in _FIXED], where=f"'{path.name}'"
    )
    table = [_fields(line, header, path, number) for number, line in enumerate(lines[1:], start=2)]
    if not table:
        raise InputError(f"file '{path}' has a header and no rows")

    def column(name: str) -> list[str]:
        j = header.index(name)
        return [fields[j].strip() for fields in table]

    return ParallelRows(
        cells={label: column(name) for label, name in languages.items()},
        ids=column("id") if "id" in header else [str(i) for i in range(1, len(table) + 1)],
        documents=column("document") if "document" in header else [],
        splits=column("split") if "split" in header else [],
        place=lambda label, row: f"file '{path}', line {row + 2}",
        source=f"file {path}",
    )


def _header(line: str, path: Path) -> list[str]:
    header = [name.strip() for name in line.split("\t")]
    for j, name in enumerate(header):
        if name in header[:j]:
            raise InputError(f"file '{path}', line 1: column '{name}' stands there twice")
        if name not in _FIXED and parse_language(name) is None:
            shown = name if len(name) <= 40 else name[:40] + "..."
            raise InputError(
                f"file '{path}', line 1: column '{shown}' is neither id, split, document nor a "
                "language code",
                hint="the first line names the columns; languages are written eng_Latn, eng or en "
                "(one that is not in FLORES-200: with its script, hsb_Latn)",
            )
    return header


def _fields(line: str, header: list[str], path: Path, number: int) -> list[str]:
    fields = line.split("\t")
    if len(fields) != len(header):
        what = "blank" if not line else f"{len(fields)} fields"
        raise InputError(
            f"file '{path}', line {number}: {what} where the header has {len(header)} columns",
            hint="a tab or a line break inside a sentence, or a missing cell?",
        )
    for name, field in zip(header, fields, strict=True):
        if field and not field.strip():
            raise InputError(
                f"file '{path}', line {number}: column '{name}' holds only white space",
                hint="leave a missing sentence empty",
            )
    return fields
