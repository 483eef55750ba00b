"""Documents in text, JSON-lines and parquet files, plain or compressed, read as a stream."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from repsim.core.errors import InputError
from repsim.corpora.text_address import TextAddress


def _open_zstandard(path: Path, mode: str, encoding: str) -> IO[str]:
    """Text of a .zst file; pyarrow brings the codec."""
    import pyarrow as pa

    del mode
    return io.TextIOWrapper(pa.input_stream(str(path), compression="zstd"), encoding=encoding)


_OPENERS: dict[str, Callable[..., IO[str]]] = {
    "": open, ".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open, ".zst": _open_zstandard,
}  # fmt: skip
#: Suffixes of compressed files.
PACKED = tuple(_OPENERS)[1:]
#: Kinds of files, by suffix.
KINDS = ("txt", "jsonl", "ndjson", "parquet")
_PLAIN = TextAddress("")


def file_kind(path: Path) -> str | None:
    """Which of `KINDS` a file is; None if it is no file of documents."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if len(suffixes) > 1 and suffixes[-1] in PACKED:
        suffixes.pop()
    kind = suffixes[-1].removeprefix(".") if suffixes else ""
    return kind if kind in KINDS else None


def read_documents(
    path: Path, address: TextAddress = _PLAIN, language: str = "", prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """Ids and texts of the documents of a file; documents without text are passed over."""
    kind = file_kind(path)
    if kind == "txt":
        with _readable(path) as lines:
            yield from _paragraphs(lines, prefix)
        return
    rows = _parquet_rows(path, address) if kind == "parquet" else read_records(path)
    what = "row" if kind == "parquet" else "line"
    for number, record in rows:
        place = f"'{path}', {what} {number + 1}"
        found = address.document(record, f"{prefix}{number:08d}", place, language)
        if found is not None:
            yield found


def read_files(
    paths: Sequence[Path], address: TextAddress, language: str
) -> Iterator[tuple[str, str]]:
    """Documents of files that are one text in pieces."""
    for k, path in enumerate(paths):
        prefix = f"{k:05d}-" if len(paths) > 1 else ""
        yield from read_documents(path, address, language, prefix)


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
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


def _parquet_rows(path: Path, address: TextAddress) -> Iterator[tuple[int, dict[str, Any]]]:
    """Row number and record of a parquet file, a thousand rows in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as table:
            names = address.columns(table.schema_arrow.names, f"'{path}'")
            for batch in table.iter_batches(batch_size=1000, columns=names):
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"'{path}' cannot be read as parquet: {error}") from None


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[IO[str]]:
    packed = path.suffix if path.suffix in _OPENERS else ""
    try:
        with _OPENERS[packed](path, "rt", encoding="utf-8") as handle:
            yield handle
    except UnicodeDecodeError as error:
        raise InputError(f"'{path}' is not UTF-8 text: {error}") from None
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, OSError, ValueError) as error:
        raise InputError(
            f"'{path}' is damaged or cut short: {error}", hint="fetch or pack it again"
        ) from None


def _paragraphs(lines: IO[str], prefix: str) -> Iterator[tuple[str, str]]:
    number = 0
    block: list[str] = []
    for line in lines:
        if line.strip():
            block.append(line.rstrip("\n"))
        elif block:
            yield f"{prefix}{number:08d}", "\n".join(block)
            number, block = number + 1, []
    if block:
        yield f"{prefix}{number:08d}", "\n".join(block)
