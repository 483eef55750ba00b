"""Files that are whole or not there, and hashes of what they hold."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from repsim.core.aside import written_aside
from repsim.core.errors import InputError

CHUNK = 1 << 20


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 text atomically; return the path."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: str | os.PathLike[str], document: Any, *, indent: int | None = 2) -> Path:
    """Write a JSON document atomically; NaN and infinity are refused, as other readers do."""
    return write_text(
        path, json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    )


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON document."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"file '{path}' does not exist") from None
    except OSError as error:
        raise InputError(f"file '{path}' cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise InputError(f"file '{path}' is nested too deeply") from None
    except ValueError as error:  # not UTF-8, not JSON, or a number of thousands of digits
        raise InputError(f"file '{path}' is not valid JSON: {error}") from None


def hash_bytes(*parts: bytes) -> str:
    """SHA-256 of some byte strings; each is preceded by its length, so that borders count."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def hash_json(document: Any) -> str:
    """SHA-256 of a JSON-able document in canonical form (sorted keys)."""
    return hash_bytes(json.dumps(document, sort_keys=True, ensure_ascii=False).encode())


def hash_files(paths: Iterable[str | os.PathLike[str]]) -> str:
    """SHA-256 over the names and contents of files, read in chunks."""
    digest = hashlib.sha256()
    for path in sorted(Path(p) for p in paths):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as handle:
            while chunk := handle.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def file_mark(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Device, inode, size, times of writing and of change, which `cp -p` cannot set back."""
    stat = Path(path).stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def cache_folder() -> Path:
    """Where caches live: `REPSIM_CACHE`, or `repsim` in the user's cache folder."""
    if chosen := os.environ.get("REPSIM_CACHE"):
        return Path(chosen)
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "repsim"
    try:
        return Path.home() / ".cache" / "repsim"
    except RuntimeError:  # no HOME, and a user whom the system does not know, as in containers
        return Path(tempfile.gettempdir()) / f"repsim-{os.getuid()}"
