"""Folders that units publish: what is in them, and whether that is still so."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repsim.core.files import hash_files
from repsim.core.provenance import now
from repsim.studies.engine.store import Store

_log = logging.getLogger("repsim.studies")


def flat(name: str) -> str:
    """The name of a folder as that of a file."""
    return name.replace("/", "--")


def note_published(store: Store, name: str, key: str, local: Path) -> None:
    """Write down who made a folder, and size and SHA-256 of each of its files."""
    files = {
        path.relative_to(local).as_posix(): [path.stat().st_size, hash_files([path])]
        for path in sorted(local.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
    store.note("folders", flat(name), {"unit": key, "time": now(), "files": files})


def damaged(store: Store, name: str, local: Path | None, *, whole: bool = True) -> str:
    """The first file of a published folder that is missing or changed; empty if none is."""
    record = store.noted("folders", flat(name))
    if record is None:
        return f"the record of {name}"
    for file, (size, digest) in record.get("files", {}).items():
        found = _size(store, f"{name}/{file}", local / file if local else None)
        if found is None:
            if "/" not in file:
                return f"{name}/{file}"
            continue
        if found != size or (whole and local and hash_files([local / file]) != digest):
            return f"{name}/{file}"
    return ""


def _size(store: Store, name: str, local: Path | None) -> int | None:
    try:
        return local.stat().st_size if local else int(store.fs.size(store.place(name)))
    except (FileNotFoundError, NotADirectoryError):
        return None


def drop_damaged(store: Store, parts: Mapping[str, Mapping[str, Any]], read: set[str]) -> set[str]:
    """Forget parts whose folders are damaged, so that they are made again; return the others."""
    kept = set(parts)
    for key, part in parts.items():
        for name in part.get("folders", ()):
            local = store.local / name if store.local else None
            if wrong := damaged(store, name, local, whole=key in read):
                _log.warning("'%s' is missing or damaged: %s is made anew", wrong, part["name"])
                store.parts.forget(key)
                kept.discard(key)
    return kept
