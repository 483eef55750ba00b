"""Who carries out units: this process, processes of this machine, a Ray cluster, Slurm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from repsim.core.registry import Registry
from repsim.studies.engine.work import Report, Task


class Executor(Protocol):
    """What the engine asks of an executor."""

    workers: int

    def has_room(self, gpus: float, processes: int) -> bool:
        """Whether to send it another task that wants so much."""
        ...

    def submit(self, task: Task) -> None:
        """Take a task."""
        ...

    def wait(self, seconds: float) -> list[Report]:
        """Wait at most so long; return what was reported."""
        ...

    def close(self) -> None:
        """End: whatever still runs is stopped."""
        ...


#: Name -> maker of an executor; takes `workers` (None: all there is) and `store` (URL).
EXECUTORS: Registry[Callable[..., Any]] = Registry("executor", entry_point_group="repsim.executors")
EXECUTORS.add("inprocess", "repsim.studies.engine.executors.local:InProcessExecutor")
EXECUTORS.add("processes", "repsim.studies.engine.executors.local:ProcessExecutor")
EXECUTORS.add("ray", "repsim.studies.engine.executors.cluster:RayExecutor")
EXECUTORS.add("slurm", "repsim.studies.engine.executors.slurm:SlurmExecutor")


def make_executor(name: str, *, workers: int | None = None, store: str = "") -> Executor:
    """Start an executor.

    Args:
        name: `inprocess`, `processes`, `ray` or `slurm`.
        workers: Units at a time; as many as there is room for if left out.
        store: URL of the store, beside which an executor may keep files of its own.

    Example:
        >>> make_executor("inprocess").workers
        1
    """
    executor: Executor = EXECUTORS[name](workers=workers, store=store)
    return executor
