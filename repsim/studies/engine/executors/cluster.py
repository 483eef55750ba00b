"""Ray: many machines as one. Scheduling, placement and retries are Ray's (extra `cluster`)."""

from __future__ import annotations

import math
from typing import Any

from repsim.core.errors import ResourceError, optional
from repsim.studies.engine.work import Report, Task, perform

#: How often Ray starts a unit again whose worker or machine died.
RETRIES = 3
#: Units that wait in Ray for each one that it runs: enough to keep it busy, few to cancel.
AHEAD = 2


class RayExecutor:
    """Sends tasks to the Ray cluster that this process belongs to."""

    def __init__(self, workers: int | None = None, store: str = "") -> None:
        self._ray = optional("ray", "the executor 'ray'", "repsim-lm[cluster]")
        self._own = not self._ray.is_initialized()
        if self._own:
            self._join(workers)
        resources = self._ray.cluster_resources()
        self.workers = max(int(resources.get("CPU", 1)), 1)
        self._gpus = float(resources.get("GPU", 0))
        self._perform = self._ray.remote(max_retries=RETRIES)(perform)
        self._tasks: dict[Any, Task] = {}

    def _join(self, workers: int | None) -> None:
        try:
            self._ray.init(
                num_cpus=workers,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
            )
        except (ConnectionError, ValueError) as error:
            hint = "is the cluster in RAY_ADDRESS up?"
            raise ResourceError(f"Ray cannot be joined: {error}", hint=hint) from error

    def has_room(self, gpus: float, processes: int) -> bool:
        """Whether fewer tasks wait in Ray than keep it busy."""
        if gpus > self._gpus or processes > self.workers:
            raise ResourceError(
                f"a unit wants {processes} cores and {gpus:g} GPUs; the Ray cluster has "
                f"{self.workers} and {self._gpus:g}",
                hint="start nodes that have them, or lower what the study asks for",
            )
        return len(self._tasks) < AHEAD * self.workers

    def submit(self, task: Task) -> None:
        """Hand a task to Ray, with what it asks for."""
        gpus = math.ceil(task.gpus) if task.gpus > 1 else task.gpus  # Ray shares out parts of one
        remote = self._perform.options(num_cpus=task.processes, num_gpus=gpus, name=task.name)
        self._tasks[remote.remote(task.to_json())] = task

    def wait(self, seconds: float) -> list[Report]:
        """Wait for a task to end."""
        ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=seconds)
        return [self._report(reference) for reference in ready]

    def _report(self, reference: Any) -> Report:
        task = self._tasks.pop(reference)
        try:
            return Report.from_json(self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            first = str(error).strip().splitlines()[0]
            return Report(task.key, "lost", 0.0, f"Ray gave it up: {type(error).__name__}: {first}")

    def close(self) -> None:
        """Cancel what runs; leave the cluster, or end it if it is ours."""
        for reference in self._tasks:
            self._ray.cancel(reference, force=True)
        self._tasks.clear()
        if self._own:
            self._ray.shutdown()
