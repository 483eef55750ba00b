"""Run folders: a manifest, immutable parts, and resumption."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from repsim.core.aside import make_folder, sweep
from repsim.core.errors import InputError, UsageError
from repsim.core.files import hash_json, read_json, write_json
from repsim.core.parts import PARQUET, Files, Parts
from repsim.core.provenance import environment, now

SCHEMA = "repsim/run/1"
_ANEW = "pass --force to start anew, or choose another folder"


class RunFolder:
    """A folder that one command fills, at once or in several goes: its manifest and its parts."""

    def __init__(self, path: Path, manifest: dict[str, Any], *, resumed: bool) -> None:
        self.path = path
        self.manifest = manifest
        self.resumed = resumed
        self.parts = Parts(Files(path), "scores", PARQUET)

    @classmethod
    def open(
        cls, path: str | Path, *, kind: str, config: Mapping[str, Any], force: bool = False
    ) -> RunFolder:
        """Create a run folder, or go on with the one that is there.

        Args:
            path: The folder; created if missing.
            kind: What fills it ("compare").
            config: Everything that the result depends on, JSON-able.
            force: Start anew if another configuration was run there or the manifest is damaged.
        """
        folder = Path(path)
        key = hash_json({"kind": kind, "config": config})
        resumed = False
        known = _known_key(folder / "manifest.json", force=force)
        if known is not None:
            resumed = known == key
            if not resumed and not force:
                raise UsageError(
                    f"'{folder}' holds a run with another configuration",
                    hint="choose another folder, or pass --force to replace it",
                )
        elif folder.is_dir() and any(folder.iterdir()) and not force:
            raise UsageError(
                f"'{folder}' is not empty and holds no run",
                hint="choose another folder, or pass --force to write into it",
            )
        manifest = {
            "schema": SCHEMA,
            "kind": kind,
            "key": key,
            "status": "running",
            "started": now(),
            "config": dict(config),
            "environment": environment(),
        }
        run = cls(folder, manifest, resumed=resumed)
        if not resumed:
            run.parts.clear()
        make_folder(folder)
        sweep(folder)
        run._write_manifest()
        return run

    def finish(self, **outputs: Any) -> None:
        """Mark the run as complete and note what it made."""
        self.manifest |= {"status": "complete", "finished": now(), **outputs}
        self._write_manifest()

    def stop(self, status: str, reason: str) -> None:
        """Mark the run as failed or interrupted; its parts stay."""
        self.manifest |= {"status": status, "reason": reason, "finished": now()}
        self._write_manifest()

    @contextlib.contextmanager
    def going(self) -> Iterator[None]:
        """What raises in here marks the run as failed, or as interrupted."""
        try:
            yield
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self.stop(status, str(error) or type(error).__name__)
            raise

    def _write_manifest(self) -> None:
        write_json(self.path / "manifest.json", self.manifest)


def _known_key(path: Path, *, force: bool) -> str | None:
    """Key of the run that a manifest is of; empty if it is damaged, None if there is none."""
    try:
        known = read_json(path) if path.exists() else None
    except InputError as error:
        if force:
            return ""
        raise InputError(error.what, hint=_ANEW) from None
    if known is None:
        return None
    key = known.get("key") if isinstance(known, dict) else None
    if isinstance(key, str):
        return key
    if force:
        return ""
    raise InputError(f"'{path}' is no manifest of a run", hint=_ANEW)
