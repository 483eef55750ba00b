"""Where results live: immutable parts in a folder or an object store, and what is said of them.

```
parts/KEY.json     what a unit found; a function of its key alone, the same bytes on every machine
timings/KEY.json   seconds that it took, and its steps
failed/KEY.json    how a unit failed; gone once it succeeds
logs/KEY.log       what it said
claims/KEY.json    who works on it now; see `claims.py`
folders/NAME.json  which unit published a folder (of weights), with size and hash of its files
models/...         the folders themselves
```
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError
from repsim.core.parts import JSON, Codec, Files, Parts
from repsim.core.provenance import now

SCHEMA = "repsim/part/1"
#: What a document that may change must hold; one that does not is damaged.
_HELD: dict[str, dict[str, type | tuple[type, ...]]] = {
    "claims": {"owner": str, "host": str, "pid": int, "beat": (int, float), "since": (int, float)},
    "failed": {"error": str, "log": str},
    "folders": {"unit": str},
    "timings": {"kind": str, "seconds": (int, float)},
}
_log = logging.getLogger("repsim.studies")


def _part(key: str, data: bytes) -> Mapping[str, Any]:
    """A part of a study: parts of the first version have no checksum, but a result."""
    document = JSON.decode(key, data)
    if "result" not in document:
        raise ValueError("it holds no result")
    return document


#: How parts of a study are written and read.
_PARTS: Codec[Mapping[str, Any]] = Codec(JSON.suffix, JSON.encode, _part)


class Store(Files):
    """Parts, failures, logs and published folders of a study, below a folder or an fsspec URL."""

    def __init__(self, url: str | Path) -> None:
        super().__init__(url)
        self.parts: Parts[Mapping[str, Any]] = Parts(self, "parts", _PARTS)

    def part(self, key: str) -> Mapping[str, Any]:
        """What a unit found; InputError if it is not there or was damaged."""
        document = self.parts.read(key)
        if document is None:
            raise InputError(f"part '{self.path('parts', key)}' is missing", hint="run again")
        return document

    def write_part(self, key: str, document: Mapping[str, Any]) -> None:
        """Write what a unit found, whole or not at all."""
        self.parts.write(key, {"schema": SCHEMA, **document})

    def results(self, keys: Mapping[str, str]) -> dict[str, Any]:
        """Results of those units (name -> key) that are done."""
        there = self.parts.read_all(keys.values())
        return {name: there[key]["result"] for name, key in keys.items() if key in there}

    def seconds(self, keys: Mapping[str, str]) -> dict[str, dict[str, float]]:
        """Seconds of the steps of those units (name -> key) that noted some."""
        there = self.keys("timings")
        noted = {name: self.noted("timings", key) for name, key in keys.items() if key in there}
        return {name: known.get("steps", {}) for name, known in noted.items() if known}

    def write_failure(self, key: str, document: Mapping[str, Any]) -> None:
        """Note that a unit failed, and why."""
        self.note("failed", key, {"time": now(), "log": self.path("logs", key, "log"), **document})

    def keys(self, kind: str) -> set[str]:
        """Keys of all documents of a kind ("parts", "failed", "claims")."""
        return {name[: -len(".json")] for name in self.names(kind) if name.endswith(".json")}

    def path(self, kind: str, key: str, suffix: str = "json") -> str:
        """Where a document lies."""
        return self.place(f"{kind}/{key}.{suffix}")

    def noted(self, kind: str, key: str) -> dict[str, Any] | None:
        """A document that may change; None if there is none, or it was damaged and is dropped."""
        data = self.read(f"{kind}/{key}.json")
        if data is None:
            return None
        try:
            document = json.loads(data)
            held = _HELD.get(kind, {})
            if isinstance(document, dict) and all(
                isinstance(document.get(name), kinds) for name, kinds in held.items()
            ):
                return document
            why = "it does not hold what it should"
        except (ValueError, RecursionError) as error:
            why = str(error)
        _log.warning("'%s' was damaged and is dropped (%s)", self.path(kind, key), why)
        self.forget(kind, key)
        return None

    def note(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        """Write a document that may change."""
        self.write(f"{kind}/{key}.json", json.dumps(document, ensure_ascii=False).encode())

    def forget(self, kind: str, key: str) -> None:
        """Remove a document, if it is there."""
        self.remove(f"{kind}/{key}.json")

    def put_folder(self, local: Path, name: str) -> None:
        """Copy a folder into the store, replacing what an earlier try left there."""
        target = self.place(name)
        if self.fs.exists(target):
            self.fs.rm(target, recursive=True)
        for file in sorted(path for path in local.rglob("*") if path.is_file()):
            there = f"{target}/{file.relative_to(local).as_posix()}"
            self.fs.makedirs(there.rpartition("/")[0], exist_ok=True)
            self.fs.put_file(str(file), there)

    def get_folder(self, name: str, local: Path) -> None:
        """Copy a folder out of the store; InputError if it is not there."""
        source = self.place(name)
        self.fs.invalidate_cache()
        if not self.fs.exists(source):
            raise InputError(f"'{source}' is missing", hint="run the study again")
        for path in self.fs.find(source):
            target = local / str(path)[len(source) :].lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            self.fs.get_file(path, str(target))
