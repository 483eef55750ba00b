"""One unit after another in this process: the simplest executor, and the one to debug with."""

from __future__ import annotations

from repsim.core.errors import UsageError
from repsim.studies.engine.work import Report, Task, perform


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
