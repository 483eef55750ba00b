"""Run folders: a manifest, immutable part files, and resumption.

A run is a folder. Each unit of work writes one part under `scores/`, named by the hash of what it
depends on; a part that is there is never computed again. The manifest states what was asked, with
which versions, and how it ended. Everything is written aside and renamed, so that a run killed at
any moment can be continued.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.errors import InputError, UsageError
from repsim.core.files import hash_json, read_json, write_json, written_aside
from repsim.core.provenance import environment, now

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = "repsim/run/1"


class RunFolder:
    """A folder that one command fills, at once or in several goes.

    Attributes:
        path: The folder.
        manifest: Its manifest, as written.
        resumed: Whether parts of an earlier, unfinished go are there.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], *, resumed: bool) -> None:
        self.path = path
        self.manifest = manifest
        self.resumed = resumed

    @classmethod
    def open(
        cls, path: str | Path, *, kind: str, config: Mapping[str, Any], force: bool = False
    ) -> RunFolder:
        """Create a run folder, or go on with the one that is there.

        Args:
            path: The folder; created if missing.
            kind: What fills it ("compare").
            config: Everything that the result depends on, JSON-able.
            force: Start anew even if another configuration was run there.

        Raises:
            UsageError: The folder holds something else, or a run of another configuration.
        """
        folder = Path(path)
        manifest_path = folder / "manifest.json"
        key = hash_json({"kind": kind, "config": config})
        resumed = False
        if manifest_path.exists():
            known = read_json(manifest_path)
            if known.get("key") == key:
                resumed = True
            elif not force:
                raise UsageError(
                    f"'{folder}' holds a run with another configuration",
                    hint="choose another folder, or pass --force to replace it",
                )
        elif folder.exists() and any(folder.iterdir()) and not force:
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
            run._clear_parts()
        (folder / "scores").mkdir(parents=True, exist_ok=True)
        run._write_manifest()
        return run

    @classmethod
    def load(cls, path: str | Path, *, kind: str | None = None) -> RunFolder:
        """Read a run folder without changing it.

        Raises:
            InputError: There is no manifest, or the run is of another kind.
        """
        folder = Path(path)
        if not (folder / "manifest.json").exists():
            raise InputError(
                f"'{folder}' is not a run folder: it has no manifest.json",
                hint="make one with: repsim compare MODEL MODEL --corpus kolibri -o DIR",
            )
        manifest = read_json(folder / "manifest.json")
        if kind and manifest.get("kind") != kind:
            raise InputError(f"'{folder}' holds a run of '{manifest.get('kind')}', not of '{kind}'")
        return cls(folder, manifest, resumed=True)

    def _part_path(self, key: str) -> Path:
        return self.path / "scores" / f"part-{key[:24]}.parquet"

    def has_part(self, key: str) -> bool:
        """Whether the part of this key (a hash) was written."""
        return self._part_path(key).exists()

    def write_part(self, key: str, table: pa.Table) -> Path:
        """Write one part, once."""
        import pyarrow.parquet as pq

        path = self._part_path(key)
        with written_aside(path) as aside:
            pq.write_table(table, aside, compression="zstd")
        return path

    def read_part(self, key: str) -> pa.Table:
        """Read one part.

        Raises:
            InputError: It is missing or damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._part_path(key)
        try:
            return pq.read_table(path)
        except FileNotFoundError:
            raise InputError(f"part '{path}' is missing", hint="run the command again") from None
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(
                f"part '{path}' is damaged: {error}", hint="delete it and run the command again"
            ) from error

    def finish(self, **outputs: Any) -> None:
        """Mark the run as complete and note what it made."""
        self.manifest |= {"status": "complete", "finished": now(), **outputs}
        self._write_manifest()

    def stop(self, status: str, reason: str) -> None:
        """Mark the run as failed or interrupted; its parts stay."""
        self.manifest |= {"status": status, "reason": reason, "finished": now()}
        self._write_manifest()

    def _clear_parts(self) -> None:
        for part in (self.path / "scores").glob("part-*.parquet"):
            part.unlink()

    def _write_manifest(self) -> None:
        write_json(self.path / "manifest.json", self.manifest)
