"""A folder of FLORES-200 (one line per sentence) or FLORES+ (one record per sentence)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repsim.core.errors import InputError, unknown_name
from repsim.corpora.languages import choose_languages, parse_language
from repsim.corpora.readers.joined import Record, join_records, record_of
from repsim.corpora.readers.jsonl import read_objects
from repsim.corpora.rows import ParallelRows, Request
from repsim.corpora.text_files import read_lines, stem

_SPLITS = ("dev", "devtest", "test", "train")
_RECORDS = ("jsonl", "parquet")


def read_flores(request: Request) -> ParallelRows:
    """Read `dev/eng_Latn.dev` (FLORES-200) or `dev/eng_Latn.jsonl|parquet` (FLORES+)."""
    folder = Path(request.location)
    splits = flores_files(folder)
    if not splits:
        raise InputError(
            f"folder '{folder}' holds no FLORES files",
            hint="expected: dev/eng_Latn.dev, or dev/eng_Latn.jsonl or .parquet",
        )
    if request.split is not None:
        if request.split not in splits:
            raise unknown_name(f"split of '{folder}'", request.split, splits)
        splits = {request.split: splits[request.split]}
    available = list(dict.fromkeys(code for files in splits.values() for code in files))
    languages = choose_languages(request.languages, available, where=f"'{folder}'")
    parts = {split: _read_split(split, files, languages) for split, files in splits.items()}
    rows = join_records(parts, source=f"folder {folder}")
    if not any(_is_records(path) for files in splits.values() for path in files.values()):
        rows.empty = "refuse"
    return rows


def flores_files(folder: Path) -> dict[str, dict[str, Path]]:
    """Split -> language code -> file; {} if the folder is not laid out so."""
    if not folder.is_dir():
        return {}
    inner = {name: _language_files(folder / name) for name in _SPLITS}
    found = {name: files for name, files in inner.items() if files}
    if found:
        return found
    own = _language_files(folder)
    return {folder.name: own} if own else {}


def _language_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    if not folder.is_dir():
        return files
    for path in sorted(folder.iterdir()):
        code, _, kind = stem(path).partition(".")
        if not path.is_file() or parse_language(code) is None:
            continue
        if kind not in (folder.name, *_RECORDS):
            continue
        if code in files:
            raise InputError(f"'{files[code]}' and '{path}' are both there for {code}")
        files[code] = path
    return files


def _read_split(
    split: str, files: dict[str, Path], languages: dict[str, str]
) -> dict[str, list[Record]]:
    part: dict[str, list[Record]] = {}
    for label, code in languages.items():
        if code not in files:
            raise InputError(
                f"{label} is not in split '{split}'",
                hint="choose a split that holds every language",
            )
        part[label] = _read_language(files[code], split)
    return part


def _is_records(path: Path) -> bool:
    return stem(path).endswith(_RECORDS)


def _read_language(path: Path, split: str) -> list[Record]:
    if not _is_records(path):
        return _read_plain(path, split)
    rows = _parquet_rows(path) if path.suffix == ".parquet" else read_objects(path)
    what = "row" if path.suffix == ".parquet" else "line"
    return [record_of(row, f"file '{path}', {what} {i}") for i, row in enumerate(rows, start=1)]


def _read_plain(path: Path, split: str) -> list[Record]:
    lines = read_lines(path)
    pages = _pages(path.parent.parent / f"metadata_{split}.tsv", len(lines), path)
    return [
        Record(None, line.strip(), page, f"file '{path}', line {i}")
        for i, (line, page) in enumerate(zip(lines, pages, strict=True), start=1)
    ]


def _pages(path: Path, n: int, beside: Path) -> list[str]:
    """URL of each sentence from FLORES-200's metadata; "" where there is no such file."""
    if not path.is_file():
        return [""] * n
    header, *lines = read_lines(path) or [""]
    names = header.split("\t")
    if "URL" not in names:
        raise InputError(f"file '{path}', line 1: no column 'URL'")
    if len(lines) != n:
        raise InputError(
            f"misaligned: '{path}' describes {len(lines)} sentences, '{beside}' has {n}"
        )
    column = names.index("URL")
    pages = []
    for number, line in enumerate(lines, start=2):
        fields = line.split("\t")
        if len(fields) != len(names):
            raise InputError(
                f"file '{path}', line {number}: {len(fields)} fields where the header has "
                f"{len(names)} columns"
            )
        pages.append(fields[column])
    return pages


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.ParquetFile(path).read().to_pylist())
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"file '{path}' is not a readable parquet file: {error}") from None
