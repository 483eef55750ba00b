"""Carrying out one unit, wherever that is: a task comes as JSON, a report goes back as JSON."""

from __future__ import annotations

import dataclasses
import json
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from repsim.core.errors import RepsimError
from repsim.core.pool import one_thread
from repsim.studies.engine.claims import claimed
from repsim.studies.engine.kinds import unit_function
from repsim.studies.engine.store import Store
from repsim.studies.engine.unit import HOW
from repsim.studies.engine.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class Task:
    """A unit as it is sent to whoever carries it out."""

    kind: str
    name: str
    key: str
    spec: Mapping[str, Any]
    needs: Mapping[str, str]
    store: str
    workspace: str
    run: str
    gpus: float = 0.0
    processes: int = 1

    def to_json(self) -> str:
        """As text."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Inverse of `to_json`."""
        return cls(**json.loads(text))


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of a task."""

    key: str
    status: Literal["done", "failed", "busy", "lost"]
    seconds: float = 0.0
    error: str = ""

    def to_json(self) -> str:
        """As text."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Inverse of `to_json`."""
        return cls(**json.loads(text))


def perform(text: str) -> str:
    """Carry out a task: write its part, or how it failed, to the store."""
    task = Task.from_json(text)
    store = Store(task.store)
    if store.parts.has(task.key):
        return Report(task.key, "done").to_json()
    workspace = Workspace(task.workspace, store, task.key)
    with claimed(store, task.key, task.run, workspace.flush) as ours:
        if not ours:
            return Report(task.key, "busy").to_json()
        return _perform(task, store, workspace).to_json()


def _perform(task: Task, store: Store, workspace: Workspace) -> Report:
    store.forget("failed", task.key)
    started = time.monotonic()
    with workspace.logging(), one_thread():
        workspace.log(f"start  {task.name}")
        try:
            needs = {name: store.part(key)["result"] for name, key in task.needs.items()}
            result = unit_function(task.kind)(task.spec, needs, workspace)
            seconds = time.monotonic() - started
            took = {"kind": task.kind, "seconds": seconds, "steps": workspace.steps}
            store.note("timings", task.key, took)
            store.write_part(task.key, _part(task, result, workspace.published))
        except Exception as error:  # noqa: BLE001 - a unit may fail in any way; it is written down
            seconds = time.monotonic() - started
            return _failed(task, store, workspace, error, seconds)
        workspace.log(f"done   {seconds:.1f} s")
    return Report(task.key, "done", seconds)


def _part(task: Task, result: Any, folders: Sequence[str]) -> dict[str, Any]:
    spec = {key: value for key, value in task.spec.items() if key != HOW}
    needs = dict(task.needs)
    part = {"kind": task.kind, "name": task.name, "spec": spec, "needs": needs, "result": result}
    return {**part, "folders": list(folders)} if folders else part


def _failed(
    task: Task, store: Store, workspace: Workspace, error: Exception, seconds: float
) -> Report:
    trace = "".join(traceback.format_exception(error))
    known = isinstance(error, RepsimError)
    message = str(error) if known else f"{type(error).__name__}: {error}"
    workspace.log(f"failed {message}\n{trace.rstrip()}")
    store.write_failure(
        task.key,
        {"name": task.name, "kind": task.kind, "error": message, "traceback": trace,
         "seconds": seconds},
    )  # fmt: skip
    return Report(task.key, "failed", seconds, message)
