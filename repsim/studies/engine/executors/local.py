"""On this machine: one unit after another in this process, or worker processes."""

from __future__ import annotations

import collections
import os
import time

from repsim.core.errors import UsageError
from repsim.core.pool import Job, Pool, available_cores
from repsim.studies.engine.work import Report, Task, perform

DEVICE = "CUDA_VISIBLE_DEVICES"


class InProcessExecutor:
    """Carries a task out while the engine waits."""

    def __init__(self, workers: int | None = None, store: str = "") -> None:
        if workers not in (None, 1):
            hint = "choose --executor processes for more than one worker"
            raise UsageError(f"one process does not have {workers} workers", hint=hint)
        self.workers = 1
        self._task: Task | None = None

    def has_room(self, gpus: float, processes: int) -> bool:
        """Whether nothing waits."""
        return self._task is None

    def submit(self, task: Task) -> None:
        """Take a task; it starts when the engine waits for it."""
        self._task = task

    def wait(self, seconds: float) -> list[Report]:
        """Carry out the task, however long it takes."""
        task, self._task = self._task, None
        return [] if task is None else [Report.from_json(perform(task.to_json()))]

    def close(self) -> None:
        """Nothing runs between calls."""
        self._task = None


class ProcessExecutor:
    """A few processes, started when there is work for them."""

    def __init__(
        self, workers: int | None = None, store: str = "", devices: tuple[str, ...] | None = None
    ) -> None:
        self.workers = workers or available_cores()
        self._devices = devices
        self._pool = Pool(self.workers, apart=True, silent=True)
        self._tasks: dict[Job, Task] = {}

    def has_room(self, gpus: float, processes: int) -> bool:
        """Whether cores and accelerators are free; a task larger than all runs alone."""
        running = self._tasks.values()
        if not running:
            return True
        if sum(task.processes for task in running) + processes > self.workers:
            return False
        return not gpus or sum(task.gpus for task in running) + gpus <= len(self.devices) + 1e-9

    @property
    def devices(self) -> tuple[str, ...]:
        """Accelerators that there are to share out."""
        if self._devices is None:
            self._devices = visible_devices()
        return self._devices

    def submit(self, task: Task) -> None:
        """Give a task to a worker that is free, or to a new one."""
        job = self._pool.submit(perform, task.to_json(), environment=self._binding(task))
        self._tasks[job] = task

    def wait(self, seconds: float) -> list[Report]:
        """Wait for a report, or for a worker to be gone."""
        return [self._report(job) for job in self._pool.wait(seconds)]

    def close(self) -> None:
        """End all workers, in the middle of a unit if need be."""
        self._pool.close()
        self._tasks.clear()

    def _report(self, job: Job) -> Report:
        task = self._tasks.pop(job)
        if job.error is None:
            return Report.from_json(job.result)
        return Report(task.key, "lost", time.monotonic() - job.since, str(job.error))

    def _binding(self, task: Task) -> dict[str, str] | None:
        """The accelerator with least to do; a task on several needs a worker that sees them all."""
        if not task.gpus or len(self.devices) < 2:
            return None
        if task.gpus > 1 or task.processes > 1:
            return {}
        used = collections.Counter((job.environment or {}).get(DEVICE) for job in self._tasks)
        return {DEVICE: min(self.devices, key=lambda device: used[device])}


def visible_devices() -> tuple[str, ...]:
    """Accelerators that this process sees, as `CUDA_VISIBLE_DEVICES` names them."""
    named = os.environ.get(DEVICE)
    if named is not None:
        return tuple(name for name in named.split(",") if name)
    import torch

    return tuple(str(number) for number in range(torch.cuda.device_count()))
