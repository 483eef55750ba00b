"""Where results live: immutable parts in a folder or an object store, through fsspec.

```
parts/KEY.json     what a unit found; a function of its key alone, the same bytes on every machine
timings/KEY.json   seconds that it took
failed/KEY.json    how a unit failed; gone once it succeeds
logs/KEY.log       what it said
claims/KEY.json    who works on it now; see `claims.py`
folders/NAME.json  which unit published a folder (of weights)
models/...         the folders themselves
```
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError, ResourceError
from repsim.core.files import write_text
from repsim.core.provenance import now

SCHEMA = "repsim/part/1"


class Store:
    """Parts, failures, logs and published folders of a study.

    Args:
        url: A folder, or any URL that fsspec knows (`s3://bucket/study`).

    Attributes:
        url: As given; a folder as an absolute path.
        local: The folder, None if the store is not one.

    Example:
        >>> import tempfile
        >>> store = Store(tempfile.mkdtemp())
        >>> store.write_part("ab12", {"result": {"bits": 2.5}})
        >>> store.part("ab12")["result"], store.keys("parts")
        ({'bits': 2.5}, {'ab12'})
    """

    def __init__(self, url: str | Path) -> None:
        self.local: Path | None = None
        if "://" not in str(url) or str(url).startswith("file://"):
            self.local = Path(str(url).removeprefix("file://")).resolve()
            self.url = str(self.local)
        else:
            self.url = str(url)
        self.fs, self.root = _filesystem(self.url)

    def part(self, key: str) -> dict[str, Any]:
        """Read what a unit found.

        Raises:
            InputError: It is not there, or is damaged.
        """
        document = self.read("parts", key)
        if document is None:
            raise InputError(f"part '{self.path('parts', key)}' is missing", hint="run again")
        return document

    def has_part(self, key: str) -> bool:
        """Whether a unit is done."""
        return bool(self.fs.exists(self.path("parts", key)))

    def write_part(self, key: str, document: Mapping[str, Any]) -> None:
        """Write what a unit found, whole or not at all.

        Raises:
            InputError: It is not JSON, or holds NaN or infinity.
        """
        self.write("parts", key, {"schema": SCHEMA, "key": key, **document})

    def results(self, keys: Mapping[str, str]) -> dict[str, Any]:
        """Results of those units that are done.

        Args:
            keys: Name of a unit -> its key.
        """
        there = self.keys("parts")
        return {name: self.part(key)["result"] for name, key in keys.items() if key in there}

    def write_failure(self, key: str, document: Mapping[str, Any]) -> None:
        """Note that a unit failed, and why."""
        self.write("failed", key, {"time": now(), "log": self.path("logs", key, "log"), **document})

    def keys(self, kind: str) -> set[str]:
        """Keys of all documents of a kind ("parts", "failed", "claims")."""
        self.fs.invalidate_cache()
        folder = f"{self.root}/{kind}"
        if not self.fs.exists(folder):
            return set()
        names = (str(path).rpartition("/")[2] for path in self.fs.ls(folder, detail=False))
        return {name[: -len(".json")] for name in names
                if name.endswith(".json") and not name.startswith(".")}  # fmt: skip

    def path(self, kind: str, key: str, suffix: str = "json") -> str:
        """Where a document lies."""
        return f"{self.root}/{kind}/{key}.{suffix}"

    def read(self, kind: str, key: str) -> dict[str, Any] | None:
        """Read a document; None if there is none.

        Raises:
            InputError: It is damaged.
        """
        path = self.path(kind, key)
        try:
            text = self.fs.cat_file(path)
        except FileNotFoundError:
            return None
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError as error:
            hint = "delete it and run the study again"
            raise InputError(f"'{path}' is damaged: {error}", hint=hint) from None
        return found

    def write(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        """Write a document: aside and renamed in a folder, in one request elsewhere.

        Raises:
            InputError: It is not JSON, or holds NaN or infinity.
        """
        try:
            text = json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"what '{key[:12]}' gave is not JSON: {error}") from None
        self.write_text(self.path(kind, key), text + "\n")

    def write_text(self, path: str, text: str) -> None:
        """Write a file of the store."""
        if self.local is not None:
            write_text(path, text)
        else:
            self.fs.pipe_file(path, text.encode())

    def remove(self, kind: str, key: str) -> None:
        """Remove a document, if it is there."""
        try:
            self.fs.rm_file(self.path(kind, key))
        except FileNotFoundError:
            return

    def put_folder(self, local: Path, name: str) -> None:
        """Copy a folder into the store, replacing what an earlier try left there."""
        target = f"{self.root}/{name}"
        if self.fs.exists(target):
            self.fs.rm(target, recursive=True)
        for file in _files(local):
            there = f"{target}/{file.relative_to(local).as_posix()}"
            self.fs.makedirs(there.rpartition("/")[0], exist_ok=True)
            self.fs.put_file(str(file), there)

    def get_folder(self, name: str, local: Path) -> None:
        """Copy a folder out of the store.

        Raises:
            InputError: It is not there.
        """
        source = f"{self.root}/{name}"
        self.fs.invalidate_cache()
        if not self.fs.exists(source):
            raise InputError(f"'{source}' is missing", hint="run the study again")
        for path in self.fs.find(source):
            target = local / str(path)[len(source) :].lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            self.fs.get_file(path, str(target))


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        ResourceError: The library for such URLs is not installed.
    """
    import fsspec

    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ResourceError(f"the store '{url}' cannot be used: {error}") from error
    return fs, str(root).rstrip("/")
