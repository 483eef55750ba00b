"""Working through the graph of a study with an executor."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from repsim.studies.engine.claims import alive
from repsim.studies.engine.executors import Executor
from repsim.studies.engine.graph import Graph, selected
from repsim.studies.engine.published import drop_damaged
from repsim.studies.engine.store import Store
from repsim.studies.engine.unit import Unit, unit_keys
from repsim.studies.engine.work import Report, Task

#: Seconds between looks at what executors and other runs are doing.
LOOK = 1.0


@dataclasses.dataclass(frozen=True)
class Event:
    """Something happened to a unit."""

    what: Literal["start", "done", "failed", "skipped", "elsewhere", "look"]
    unit: Unit | None
    graph: Graph
    seconds: float = 0.0
    error: str = ""
    log: str = ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    done: tuple[str, ...]
    failed: dict[str, str]
    skipped: dict[str, str]
    left: tuple[str, ...]
    keys: dict[str, str]

    @property
    def complete(self) -> bool:
        """Whether everything is there."""
        return not (self.failed or self.skipped or self.left)


def run_graph(
    units: Sequence[Unit],
    store: Store,
    executor: Executor,
    on_event: Callable[[Event], None] = lambda event: None,
    *,
    workspace: str | Path | None = None,
    only: Sequence[str] = (),
    max_seconds: float | None = None,
) -> Outcome:
    """Carry out units that are not done yet; says what is done, failed, skipped and left.

    What is in the store is not done again; what failed before is tried again. A failed unit does
    not hold up those that do not need it. Whatever interrupts this, the next call goes on.

    Args:
        units: Every one after those that it needs.
        store: Where results go.
        executor: Who does the work; it is closed at the end.
        on_event: Told of everything that happens.
        workspace: Local folder; that of the store if left out.
        only: Kinds or patterns of names; see `graph.selected`.
        max_seconds: Start no unit that is expected to take longer, and stop what still runs then.
    """
    chosen = selected(units, only)
    run = _Run(Graph(chosen, _whole(chosen, store)), store, executor, on_event, workspace)
    run.learn()
    try:
        run.work(max_seconds)
    finally:
        run.stop()
    graph = run.graph
    done = tuple(name for name in graph.units if name in graph.done)
    left = tuple(n for n in graph.units if n in graph.left | graph.elsewhere | graph.running)
    return Outcome(done, dict(graph.failed), dict(graph.skipped), left, dict(graph.keys))


def _whole(units: Sequence[Unit], store: Store) -> set[str]:
    """Keys of what is done. Damaged parts, and parts of damaged folders, are dropped."""
    keys = unit_keys(units)
    there = store.parts.read_all(store.keys("parts") & set(keys.values()))
    read = {keys[need] for unit in units if keys[unit.name] not in there for need in unit.needs}
    return drop_damaged(store, there, read)


class _Run:
    """One run: sends tasks while there is room, and listens."""

    def __init__(
        self, graph: Graph, store: Store, executor: Executor,
        on_event: Callable[[Event], None], workspace: str | Path | None,
    ) -> None:  # fmt: skip
        self.graph, self.store, self.executor = graph, store, executor
        self.id = uuid.uuid4().hex
        self._tell = on_event
        self._workspace = str(workspace or store.local or "")
        self._started = time.monotonic()

    def learn(self) -> None:
        """Correct estimates by what units of an earlier run took."""
        for key in sorted(self.store.keys("timings")):
            name = self.graph.names.get(key)
            known = self.store.noted("timings", key) if name else None
            if name and known and (estimate := self.graph.units[name].seconds):
                self.graph.learn(known["kind"], known["seconds"] / estimate)

    def work(self, max_seconds: float | None) -> None:
        """Until nothing is left that could be done."""
        while True:
            left = None if max_seconds is None else max_seconds - self.elapsed
            if left is not None and left <= 0:
                return
            self._send(left, max_seconds)
            if not self.graph.running and not self.graph.elsewhere:
                return
            wait = LOOK if left is None else min(LOOK, left)
            if self.graph.running:
                for report in self.executor.wait(wait):
                    self._heard(report)
            else:
                time.sleep(wait)
            self._look_elsewhere()
            self._tell(Event("look", None, self.graph))

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def stop(self) -> None:
        """End what still runs and give its claims back."""
        self.executor.close()
        for name in self.graph.running:
            known = self.store.noted("claims", self.graph.keys[name])
            if known and known["owner"] == self.id:
                self.store.forget("claims", self.graph.keys[name])

    def _send(self, left: float | None, whole: float | None) -> None:
        for unit in self.graph.ready():
            if not self.executor.has_room(unit.gpus, unit.processes):
                return
            expected = self.graph.expected(unit.name)
            # A unit longer than the whole time would never start: it does, and goes on next time
            # where it was, if it keeps checkpoints.
            if left is not None and whole is not None and left < expected < whole:
                continue
            self.graph.running.add(unit.name)
            self._tell(Event("start", unit, self.graph))
            self.executor.submit(self._task(unit))

    def _task(self, unit: Unit) -> Task:
        keys = self.graph.keys
        return Task(
            unit.kind, unit.name, keys[unit.name], unit.spec,
            {need: keys[need] for need in unit.needs}, self.store.url, self._workspace, self.id,
            unit.gpus, unit.processes,
        )  # fmt: skip

    def _heard(self, report: Report) -> None:
        unit = self.graph.units[self.graph.names[report.key]]
        if report.status == "done":
            self.graph.finish(unit.name, report.seconds or None)
            self._tell(Event("done", unit, self.graph, report.seconds))
        elif report.status == "busy":
            self.graph.running.discard(unit.name)
            self.graph.elsewhere.add(unit.name)
            self._tell(Event("elsewhere", unit, self.graph))
        else:
            if report.status == "lost":
                self.store.write_failure(
                    report.key, {"name": unit.name, "kind": unit.kind, "error": report.error,
                                 "traceback": "", "seconds": report.seconds},
                )  # fmt: skip
            self._failed(unit, report)

    def _failed(self, unit: Unit, report: Report) -> None:
        skipped = self.graph.fail(unit.name, report.error)
        log = self.store.path("logs", report.key, "log")
        self._tell(Event("failed", unit, self.graph, report.seconds, report.error, log))
        for name in skipped:
            self._tell(Event("skipped", self.graph.units[name], self.graph, error=unit.name))

    def _look_elsewhere(self) -> None:
        """Take note of what other runs did; take over what they left."""
        for name in sorted(self.graph.elsewhere):
            key = self.graph.keys[name]
            if self.store.parts.has(key):
                self.graph.finish(name, None)
                self._tell(Event("done", self.graph.units[name], self.graph))
            elif alive(self.store.noted("claims", key)):
                continue
            elif failure := self.store.noted("failed", key):
                self.graph.elsewhere.discard(name)
                self._failed(
                    self.graph.units[name], Report(key, "failed", 0.0, str(failure["error"]))
                )
            else:  # the other run was interrupted: the unit is ours
                self.graph.elsewhere.discard(name)
