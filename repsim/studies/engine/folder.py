"""The folder of a study: what was asked, and how far it is."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repsim.core.aside import make_folder, sweep
from repsim.core.errors import InputError, UsageError
from repsim.core.files import read_json, write_json
from repsim.core.provenance import environment, now
from repsim.studies.engine.claims import alive
from repsim.studies.engine.store import Store
from repsim.studies.engine.unit import Unit, unit_keys

SCHEMA = "repsim/study/1"
#: What a manifest holds.
_HELD = ("key", "status", "started", "store", "config", "earlier")
_log = logging.getLogger("repsim.studies")


class StudyFolder:
    """Manifest and graph of a study, beside its parts."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(
        cls, path: str | Path, *, config: Mapping[str, Any], key: str, units: Sequence[Unit],
        store: str | None = None,
    ) -> StudyFolder:  # fmt: skip
        """Create the folder, or go on with it; another study may be added to one that is there.

        A damaged manifest is written anew with a note: all that is done lies beside it.
        """
        folder = Path(path)
        earlier: list[dict[str, Any]] = []
        if (folder / "manifest.json").exists() and (known := _whole_manifest(folder)):
            earlier = known["earlier"]
            if known["key"] != key:
                earlier = [*earlier, {"key": known["key"], "started": known["started"]}]
            if store is not None and store != known["store"]:
                raise UsageError(
                    f"results of '{folder}' are in '{known['store'] or folder}', not in '{store}'",
                    hint="choose another folder",
                )
            store = known["store"]
        elif not (folder / "manifest.json").exists() and folder.is_dir() and any(folder.iterdir()):
            hint = "choose another folder"
            raise UsageError(f"'{folder}' is not empty and holds no study", hint=hint)
        manifest = {
            "schema": SCHEMA, "kind": "study", "key": key, "status": "running", "started": now(),
            "store": store, "config": dict(config), "earlier": earlier,
            "environment": environment(),
        }  # fmt: skip
        made = cls(folder, manifest)
        make_folder(folder)
        sweep(folder)
        made._write()
        write_json(folder / "units.json", [_described(u, k) for u, k in _keyed(units)], indent=None)
        return made

    @classmethod
    def load(cls, path: str | Path) -> StudyFolder:
        """Read what is there."""
        folder = Path(path)
        hint = "make one with: repsim study run STUDY -o DIR"
        if not (folder / "manifest.json").exists():
            raise InputError(f"'{folder}' is not the folder of a study", hint=hint)
        manifest = read_json(folder / "manifest.json")
        if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
            raise InputError(f"'{folder}' holds no study of the kind {SCHEMA}", hint=hint)
        if missing := [name for name in _HELD if name not in manifest]:
            raise InputError(f"'{folder}/manifest.json' is damaged: no {missing[0]}", hint=hint)
        return cls(folder, manifest)

    @property
    def store(self) -> Store:
        """Where its results are."""
        return Store(self.manifest["store"] or self.path)

    @property
    def added(self) -> bool:
        """Whether another study was run in this folder before."""
        return bool(self.manifest["earlier"])

    def note(self, status: str, **facts: Any) -> None:
        """Write down how the run ended."""
        self.manifest |= {"status": status, "finished": now(), **facts}
        self._write()

    def status(self) -> StudyStatus:
        """Look at the store: what is done, running, failed, left."""
        return study_status(read_json(self.path / "units.json"), self.store)

    def _write(self) -> None:
        write_json(self.path / "manifest.json", self.manifest)


@dataclasses.dataclass(frozen=True)
class StudyStatus:
    """How far a study is."""

    kinds: tuple[dict[str, Any], ...]
    running: tuple[dict[str, Any], ...]
    failed: tuple[dict[str, Any], ...]

    @property
    def left(self) -> int:
        """Units that are not done."""
        return sum(row["units"] - row["done"] for row in self.kinds)


def study_status(units: Sequence[Mapping[str, Any]], store: Store) -> StudyStatus:
    """How far some units are."""
    done, failed, claims = store.keys("parts"), store.keys("failed"), store.keys("claims")
    rows: dict[str, dict[str, Any]] = {}
    states: dict[str, str] = {}
    running, failures = [], []
    for unit in units:
        key, name = unit["key"], unit["name"]
        claim = store.noted("claims", key) if key in claims else None
        failure = store.noted("failed", key) if key in failed else None
        blocked = any(states[need] in ("failed", "skipped") for need in unit["needs"])
        state = "skipped" if blocked else "left"
        if key in done:
            state = "done"
        elif claim is not None and alive(claim):
            state = "running"
            running.append({"unit": name, "seconds": round(time.time() - claim["since"])})
        elif failure is not None:
            state = "failed"
            failures.append({"unit": name, "error": failure["error"], "log": failure["log"]})
        states[name] = state
        row = rows.setdefault(
            unit["kind"],
            {"kind": unit["kind"], "units": 0, "done": 0, "running": 0, "failed": 0, "skipped": 0,
             "left": 0},
        )  # fmt: skip
        row["units"] += 1
        row[state] += 1
    return StudyStatus(tuple(rows.values()), tuple(running), tuple(failures))


def _whole_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest; None, with a note, if it is damaged and the rest of a study is there."""
    try:
        return StudyFolder.load(folder).manifest
    except InputError as error:
        if not (folder / "units.json").exists() and not (folder / "parts").is_dir():
            raise
        _log.warning("%s; it is written anew, and what is done is kept", error.what)
        return None


def _keyed(units: Sequence[Unit]) -> list[tuple[Unit, str]]:
    keys = unit_keys(units)
    return [(unit, keys[unit.name]) for unit in units]


def _described(unit: Unit, key: str) -> dict[str, Any]:
    return {"kind": unit.kind, "name": unit.name, "key": key, "needs": list(unit.needs),
            "seconds": unit.seconds}  # fmt: skip
