"""Line-aligned files, one per language, as Moses and OPUS have them."""

from __future__ import annotations

from pathlib import Path

from repsim.core.errors import InputError
from repsim.corpora.languages import choose_languages, parse_language
from repsim.corpora.rows import ParallelRows, Request
from repsim.corpora.text_files import read_lines, stem


def read_moses(request: Request) -> ParallelRows:
    """Read `PREFIX.en`, `PREFIX.de`, ...: line i of each file is the same sentence."""
    prefix = Path(request.location)
    files = moses_files(prefix)
    if len(files) < 2:
        found = f"only {', '.join(str(p) for p in files.values())}" if files else "no file"
        raise InputError(
            f"line-aligned corpus '{prefix}': {found} was found",
            hint=f"files are named PREFIX.LANGUAGE, such as {prefix.name}.en and {prefix.name}.de",
        )
    languages = choose_languages(request.languages, list(files), where=f"'{prefix}'")
    paths = {label: files[code] for label, code in languages.items()}
    columns = {label: read_lines(path) for label, path in paths.items()}
    _check_aligned({paths[label]: len(lines) for label, lines in columns.items()})
    n = len(next(iter(columns.values())))
    if n == 0:
        raise InputError(f"file '{next(iter(paths.values()))}' is empty")
    ids, documents = _ids(prefix, n, next(iter(paths.values())))
    return ParallelRows(
        cells={label: [line.strip() for line in lines] for label, lines in columns.items()},
        ids=ids,
        documents=documents,
        place=lambda label, row: f"file '{paths[label]}', line {row + 1}",
        source=f"files {prefix}.*",
        empty="refuse",
    )


def moses_files(prefix: Path) -> dict[str, Path]:
    """Language code -> file, for the files that are named PREFIX.LANGUAGE."""
    files: dict[str, Path] = {}
    if not prefix.parent.is_dir():
        return files
    for path in sorted(prefix.parent.iterdir()):
        name = stem(path)
        code = name.removeprefix(f"{prefix.name}.")
        if code == name or not path.is_file() or parse_language(code) is None:
            continue
        if code in files:
            raise InputError(f"'{files[code]}' and '{path}' are both there for '{code}'")
        files[code] = path
    return files


def _ids(prefix: Path, n: int, beside: Path) -> tuple[list[str], list[str]]:
    """Ids and documents; OPUS writes `document_a, document_b, sentences_a, sentences_b`, tabbed."""
    path = prefix.parent / f"{prefix.name}.ids"
    if not path.is_file():
        return [str(i) for i in range(1, n + 1)], []
    lines = read_lines(path)
    _check_aligned({path: len(lines), beside: n})
    fields = [line.split("\t") for line in lines]
    documents = [row[0] for row in fields] if all(len(row) > 1 for row in fields) else []
    return [" ".join(row).strip() for row in fields], documents


def _check_aligned(counts: dict[Path, int]) -> None:
    (first, n), *others = counts.items()
    for path, other in others:
        if other != n:
            raise InputError(
                f"misaligned: '{first}' has {n} lines and '{path}' has {other}",
                hint="line i of every file is the same sentence",
            )
