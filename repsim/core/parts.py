"""Immutable parts, named by the hash of what they depend on, in a folder or an object store."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import io
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from repsim.core.aside import written_aside
from repsim.core.errors import InputError, ResourceError
from repsim.core.files import hash_bytes, hash_json

T = TypeVar("T")
#: Files of an object store that are read at a time.
READERS = 8
_log = logging.getLogger("repsim.parts")


class Files:
    """A folder, or any place that fsspec knows (`s3://bucket/study`); files appear whole."""

    def __init__(self, url: str | Path) -> None:
        import fsspec

        self.local: Path | None = None
        if "://" not in str(url) or str(url).startswith("file://"):
            self.local = Path(str(url).removeprefix("file://")).resolve()
        self.url = str(self.local or url)
        try:
            self.fs, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ResourceError(f"the store '{url}' cannot be used: {error}") from error
        self.root = str(root).rstrip("/")

    def place(self, name: str) -> str:
        """Where a file lies."""
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes | None:
        """What a file holds; None if there is none."""
        try:
            return bytes(self.fs.cat_file(self.place(name)))
        except FileNotFoundError:
            return None

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """What those of many files hold that are there; of an object store, some at a time."""
        listed = list(names)
        with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
            found = zip(listed, pool.map(self.read, listed), strict=True)
            return {name: data for name, data in found if data is not None}

    def write(self, name: str, data: bytes) -> None:
        """Write a file: aside and renamed in a folder, in one request elsewhere."""
        if self.local is None:
            self.fs.pipe_file(self.place(name), data)
            return
        with written_aside(self.place(name)) as aside:
            aside.write_bytes(data)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        try:
            self.fs.rm_file(self.place(name))
        except FileNotFoundError:
            return

    def names(self, folder: str) -> set[str]:
        """Files of a folder that are not in the making."""
        self.fs.invalidate_cache()
        if not self.fs.exists(self.place(folder)):
            return set()
        listed = self.fs.ls(self.place(folder), detail=False)
        names = (str(path).rstrip("/").rpartition("/")[2] for path in listed)
        return {name for name in names if not name.startswith(".")}


@dataclasses.dataclass(frozen=True)
class Codec(Generic[T]):
    """How parts of one kind are written with their keys; `decode` raises ValueError on damage."""

    suffix: str
    encode: Callable[[str, T], bytes]
    decode: Callable[[str, bytes], T]


class Parts(Generic[T]):
    """Parts by key. One that is damaged is dropped with a note, and so made anew."""

    def __init__(self, files: Files, folder: str, codec: Codec[T]) -> None:
        self._files, self._folder, self._codec = files, folder, codec

    def name(self, key: str) -> str:
        """The file of a part."""
        return f"{self._folder}/{key}.{self._codec.suffix}"

    def keys(self) -> set[str]:
        """Keys of all parts, whether whole or not."""
        end = f".{self._codec.suffix}"
        return {n[: -len(end)] for n in self._files.names(self._folder) if n.endswith(end)}

    def has(self, key: str) -> bool:
        """Whether a part was written."""
        return bool(self._files.fs.exists(self._files.place(self.name(key))))

    def write(self, key: str, value: T) -> None:
        """Write a part, whole or not at all."""
        self._files.write(self.name(key), self._codec.encode(key, value))

    def read(self, key: str) -> T | None:
        """A part; None if it is not there or was damaged."""
        data = self._files.read(self.name(key))
        return None if data is None else self._decoded(key, data)

    def read_all(self, keys: Iterable[str]) -> dict[str, T]:
        """Those of some parts that are there, and whole."""
        names = {self.name(key): key for key in keys}
        found = self._files.read_all(names)
        values = {names[name]: self._decoded(names[name], data) for name, data in found.items()}
        return {key: value for key, value in values.items() if value is not None}

    def forget(self, key: str) -> None:
        """Remove a part, if it is there."""
        self._files.remove(self.name(key))

    def clear(self) -> None:
        """Remove all parts."""
        for key in self.keys():
            self._files.remove(self.name(key))

    def _decoded(self, key: str, data: bytes) -> T | None:
        try:
            return self._codec.decode(key, data)
        except ValueError as error:
            place = self._files.place(self.name(key))
            _log.warning("'%s' was damaged and is made anew (%s)", place, error)
            self._files.remove(self.name(key))
            return None


def _to_json(key: str, document: Mapping[str, Any]) -> bytes:
    try:
        plain = json.loads(json.dumps({**document, "key": key}, allow_nan=False))  # as read again
        whole = {**plain, "sha256": hash_json(plain)}
        text = json.dumps(whole, sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"the result is not JSON: {error}") from None
    return text.encode() + b"\n"


def _from_json(key: str, data: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError("it is no mapping")
    known = document.pop("sha256", None)  # parts of version 0.1 have none
    if known not in (None, hash_json(document)):
        raise ValueError("its checksum is wrong")
    if document.pop("key", key) != key:
        raise ValueError("it is another part")
    return document


def _to_parquet(key: str, table: Any) -> bytes:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    about = {_KEY: key.encode(), _DIGEST: _digest(table).encode()}
    marked = table.replace_schema_metadata({**(table.schema.metadata or {}), **about})
    pq.write_table(marked, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def _from_parquet(key: str, data: bytes) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
        table.validate(full=True)
        known = dict(table.schema.metadata or {})
        part, digest = known.pop(_KEY, None), known.pop(_DIGEST, None)  # version 0.1 has neither
        whole = digest in (None, _digest(table).encode())
    except (pa.ArrowException, OSError, OverflowError, MemoryError) as error:
        raise ValueError(str(error)) from error
    if part not in (None, key.encode()) or not whole:
        raise ValueError("its checksum is wrong" if not whole else "it is another part")
    return table.replace_schema_metadata(known or None)


def _digest(table: Any) -> str:
    """SHA-256 of names, types and values, for the footer of a parquet file has no checksum."""
    import pyarrow as pa

    parts = []
    for field, column in zip(table.schema, table.columns, strict=True):
        parts += [field.name.encode(), str(field.type).encode()]
        flat = column.combine_chunks()
        if pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
            parts += [flat.is_null().to_numpy(zero_copy_only=False).tobytes()]
            parts += [flat.fill_null(0).to_numpy(zero_copy_only=False).tobytes()]
            continue
        if not pa.types.is_dictionary(field.type):
            flat = flat.dictionary_encode()
        codes = flat.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        parts += [repr(flat.dictionary.to_pylist()).encode(), codes.tobytes()]
    return hash_bytes(*parts)


#: Where a parquet part says whose it is, and what it holds.
_KEY, _DIGEST = b"repsim.part", b"repsim.sha256"
#: JSON documents with a checksum.
JSON: Codec[Mapping[str, Any]] = Codec("json", _to_json, _from_json)
#: Arrow tables as parquet, whose pages have checksums.
PARQUET: Codec[Any] = Codec("parquet", _to_parquet, _from_parquet)
