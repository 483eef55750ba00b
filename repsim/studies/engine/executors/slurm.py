"""Slurm through submitit: one job per unit (extra `cluster`)."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

from repsim.core.errors import ResourceError, optional
from repsim.core.files import cache_folder
from repsim.studies.engine.work import Report, Task, perform

#: Minutes that a job may take, unless `REPSIM_SLURM_MINUTES` says otherwise.
MINUTES = 240
#: Seconds between looks at the queue.
LOOK = 2.0
#: Jobs in the queue at a time, unless a number of workers is given.
QUEUED = 100


class SlurmExecutor:
    """Submits each task as a job."""

    def __init__(
        self, workers: int | None = None, store: str = "", cluster: str | None = None
    ) -> None:
        submitit = optional("submitit", "the executor 'slurm'", "repsim-lm[cluster]")
        folder = Path(store) / "slurm" if store and "://" not in store else cache_folder() / "slurm"
        self.workers = workers or QUEUED
        try:
            self._executor = submitit.AutoExecutor(folder=str(folder), cluster=cluster or "slurm")
        except RuntimeError as error:
            hint = "run it where sbatch is, or choose another --executor"
            raise ResourceError(f"Slurm cannot be used: {error}", hint=hint) from error
        self._jobs: list[tuple[Any, Task]] = []

    def has_room(self, gpus: float, processes: int) -> bool:
        """Whether the queue is short enough."""
        return len(self._jobs) < self.workers

    def submit(self, task: Task) -> None:
        """Submit a job."""
        self._executor.update_parameters(
            name="repsim",
            timeout_min=int(os.environ.get("REPSIM_SLURM_MINUTES", MINUTES)),
            cpus_per_task=task.processes,
            **({"gpus_per_node": math.ceil(task.gpus)} if task.gpus else {}),
        )
        self._jobs.append((self._executor.submit(perform, task.to_json()), task))

    def wait(self, seconds: float) -> list[Report]:
        """Wait for jobs to end."""
        deadline = time.monotonic() + seconds
        while True:
            ended = [(job, task) for job, task in self._jobs if job.done()]
            if ended:
                self._jobs = [entry for entry in self._jobs if entry not in ended]
                return [_report(job, task) for job, task in ended]
            left = deadline - time.monotonic()
            if left <= 0:
                return []
            time.sleep(min(LOOK, left))

    def close(self) -> None:
        """Cancel the jobs that are left."""
        for job, _ in self._jobs:
            job.cancel()
        self._jobs.clear()


def _report(job: Any, task: Task) -> Report:
    """What a job said; without a word from it, what is known of its end."""
    import submitit

    try:
        return Report.from_json(job.result())
    except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError) as error:
        first = str(error).strip().splitlines()[0]
        return Report(task.key, "lost", 0.0, f"job {job.job_id} ended ({job.state}): {first}")
