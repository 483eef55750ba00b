"""Worker processes of this machine, one thread each.

Plain pipes and lines of JSON rather than a pool of the standard library: a pool is broken once one
of its processes is killed. Here a worker that is gone is replaced, and its unit is tried once more.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import queue
import signal
import subprocess
import sys
import threading
import time

from repsim.core.workers import available_cores
from repsim.studies.engine.work import THREAD_VARIABLES, Report, Task

#: How often a unit is sent again after its worker died.
RETRIES = 1
#: What is kept of the last words of a worker.
LAST_WORDS = 40


@dataclasses.dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[str]
    device: str | None
    said: collections.deque[str]
    task: Task | None = None
    since: float = 0.0


class ProcessExecutor:
    """A few processes, started when there is work for them.

    Args:
        workers: How many; as many as there are cores if left out.
        store: Not used.
        devices: Accelerators to share out, as in `CUDA_VISIBLE_DEVICES`; all that are visible if
            left out.
    """

    def __init__(
        self, workers: int | None = None, store: str = "", devices: tuple[str, ...] | None = None
    ) -> None:
        self.workers = workers or available_cores()
        self._devices = devices
        self._pool: list[_Worker] = []
        self._said: queue.Queue[tuple[_Worker, str | None]] = queue.Queue()
        self._tries: collections.Counter[str] = collections.Counter()

    def has_room(self, gpus: float, processes: int) -> bool:
        """Whether cores and accelerators are free; a task larger than all runs alone."""
        running = self._running()
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
        worker = next((w for w in self._pool if w.task is None and self._fits(w, task)), None)
        if worker is None:
            idle = next((w for w in self._pool if w.task is None), None)
            if idle is not None and len(self._pool) >= self.workers:
                self._end(idle)
            worker = self._start(self._device_for(task))
        self._give(worker, task)

    def wait(self, seconds: float) -> list[Report]:
        """Wait for a report, or for a worker to be gone."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                worker, line = self._said.get(timeout=left)
            except queue.Empty:
                return []
            found = self._heard(worker, line)
            if found is not None:
                return [found]
        return []

    def close(self) -> None:
        """End all workers, in the middle of a unit if need be."""
        for worker in list(self._pool):
            self._end(worker)

    def _running(self) -> list[Task]:
        return [worker.task for worker in self._pool if worker.task is not None]

    def _heard(self, worker: _Worker, line: str | None) -> Report | None:
        if line is not None:
            worker.task = None
            return Report.from_json(line)
        if worker not in self._pool:
            return None  # it was ended by us
        self._pool.remove(worker)
        code = worker.process.wait()
        _close_input(worker)
        task, seconds = worker.task, time.monotonic() - worker.since
        if task is None:
            return None
        self._tries[task.key] += 1
        if self._tries[task.key] <= RETRIES:
            self.submit(task)
            return None
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        how += " (was memory short?)" if code == -signal.SIGKILL else ""
        words = "".join(worker.said).strip()
        error = f"its worker {how}, {self._tries[task.key]} times"
        return Report(task.key, "lost", seconds, f"{error}: {words}" if words else error)

    def _fits(self, worker: _Worker, task: Task) -> bool:
        """A worker is bound to one accelerator; a task on several needs one that is not."""
        if not self._devices or len(self._devices) < 2 or not task.gpus:
            return True
        return (worker.device is None) == (task.gpus > 1 or task.processes > 1)

    def _device_for(self, task: Task) -> str | None:
        if not task.gpus or task.gpus > 1 or task.processes > 1 or len(self.devices) < 2:
            return None
        used = collections.Counter(worker.device for worker in self._pool if worker.task)
        return min(self.devices, key=lambda device: used[device])

    def _start(self, device: str | None) -> _Worker:
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1"), "REPSIM_QUIET": "1"}
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        process = subprocess.Popen(
            [sys.executable, "-m", "repsim.studies.engine.executors.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, encoding="utf-8", bufsize=1, env=environment,
        )  # fmt: skip
        worker = _Worker(process, device, collections.deque(maxlen=LAST_WORDS))
        self._pool.append(worker)
        for target in (self._read_reports, self._read_words):
            threading.Thread(target=target, args=(worker,), daemon=True).start()
        return worker

    def _give(self, worker: _Worker, task: Task) -> None:
        worker.task, worker.since = task, time.monotonic()
        assert worker.process.stdin is not None
        try:
            worker.process.stdin.write(task.to_json() + "\n")
            worker.process.stdin.flush()
        except BrokenPipeError:
            return  # it is gone; its end of output tells so, and the task is sent again

    def _read_reports(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        with worker.process.stdout as lines:
            for line in lines:
                self._said.put((worker, line))
        self._said.put((worker, None))

    def _read_words(self, worker: _Worker) -> None:
        assert worker.process.stderr is not None
        with worker.process.stderr as lines:
            worker.said.extend(lines)

    def _end(self, worker: _Worker) -> None:
        self._pool.remove(worker)
        worker.process.kill()
        worker.process.wait()
        _close_input(worker)


def _close_input(worker: _Worker) -> None:
    assert worker.process.stdin is not None
    try:
        worker.process.stdin.close()
    except BrokenPipeError:
        return  # what it was sent last did not reach it


def visible_devices() -> tuple[str, ...]:
    """Accelerators that this process sees, as `CUDA_VISIBLE_DEVICES` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(name for name in named.split(",") if name)
    import torch

    return tuple(str(number) for number in range(torch.cuda.device_count()))
