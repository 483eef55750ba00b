"""Documents in text and JSON-lines files, plain or compressed, read as a stream."""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from repsim.core.errors import InputError

_OPENERS: dict[str, Callable[..., IO[str]]] = {"": open, ".gz": gzip.open, ".xz": lzma.open}


def find_document_file(folder: Path, language: str, split: str) -> Path | None:
    """The file of a language and split: `LANG.SPLIT.*`, for training text also `LANG.*`."""
    stems = [f"{language}.{split}"] + ([language] if split == "train" else [])
    names = [
        f"{stem}.{kind}{packed}"
        for stem in stems
        for kind in ("txt", "jsonl")
        for packed in _OPENERS
    ]
    found = [folder / name for name in names if (folder / name).is_file()]
    if len(found) > 1:
        raise InputError(
            f"'{folder}' has two {split} files for {language}: {found[0].name}, {found[1].name}",
            hint="keep one of them",
        )
    return found[0] if found else None


def read_documents(path: Path) -> Iterator[tuple[str, str]]:
    """Ids and texts of the documents of a file; documents without text are passed over."""
    if ".jsonl" not in path.suffixes:
        with _readable(path) as lines:
            yield from _paragraphs(lines)
        return
    for number, record in read_records(path):
        text = record.get("text")
        if not isinstance(text, str):
            raise InputError(f"'{path}', line {number + 1} has no field 'text' with a string")
        if text.strip():
            yield str(record.get("id", f"{number:08d}")), text


def read_records(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Line number (from 0) and object of each line of a JSON-lines file."""
    with _readable(path) as lines:
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"'{path}', line {number + 1} is not JSON: {error}") from None
            if not isinstance(record, dict):
                raise InputError(f"'{path}', line {number + 1} is not a JSON object")
            yield number, record


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[IO[str]]:
    packed = path.suffix if path.suffix in _OPENERS else ""
    try:
        with _OPENERS[packed](path, "rt", encoding="utf-8") as handle:
            yield handle
    except UnicodeDecodeError as error:
        raise InputError(f"'{path}' is not UTF-8 text: {error}") from None
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"'{path}' is damaged or cut short: {error}", hint="fetch or pack it again"
        ) from None


def _paragraphs(lines: IO[str]) -> Iterator[tuple[str, str]]:
    number = 0
    block: list[str] = []
    for line in lines:
        if line.strip():
            block.append(line.rstrip("\n"))
        elif block:
            yield f"{number:08d}", "\n".join(block)
            number, block = number + 1, []
    if block:
        yield f"{number:08d}", "\n".join(block)
