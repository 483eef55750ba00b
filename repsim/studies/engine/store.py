"""Where results live: immutable parts in a folder or an object store, and what is said of them.

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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError
from repsim.core.parts import JSON, Files, Parts
from repsim.core.provenance import now

SCHEMA = "repsim/part/1"


class Store(Files):
    """Parts, failures, logs and published folders of a study, below a folder or an fsspec URL."""

    def __init__(self, url: str | Path) -> None:
        super().__init__(url)
        self.parts: Parts[Mapping[str, Any]] = Parts(self, "parts", JSON)

    def part(self, key: str) -> Mapping[str, Any]:
        """What a unit found.

        Raises:
            InputError: It is not there, or was damaged.
        """
        document = self.parts.read(key)
        if document is None:
            raise InputError(f"part '{self.path('parts', key)}' is missing", hint="run again")
        return document

    def write_part(self, key: str, document: Mapping[str, Any]) -> None:
        """Write what a unit found, whole or not at all."""
        self.parts.write(key, {"schema": SCHEMA, "key": key, **document})

    def results(self, keys: Mapping[str, str]) -> dict[str, Any]:
        """Results of those units (name -> key) that are done."""
        there = self.parts.read_all(keys.values())
        return {name: there[key]["result"] for name, key in keys.items() if key in there}

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
        """A document that may change; None if there is none.

        Raises:
            InputError: It is damaged.
        """
        data = self.read(f"{kind}/{key}.json")
        try:
            return None if data is None else json.loads(data)
        except ValueError as error:
            hint = "delete it and run the study again"
            raise InputError(f"'{self.path(kind, key)}' is damaged: {error}", hint=hint) from None

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
        """Copy a folder out of the store.

        Raises:
            InputError: It is not there.
        """
        source = self.place(name)
        self.fs.invalidate_cache()
        if not self.fs.exists(source):
            raise InputError(f"'{source}' is missing", hint="run the study again")
        for path in self.fs.find(source):
            target = local / str(path)[len(source) :].lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            self.fs.get_file(path, str(target))
