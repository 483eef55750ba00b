"""Worker processes: one thread each, replaced when they die, gone when their parent is."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing import connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Self

from repsim.core.errors import ResourceError, UsageError

#: Libraries that read it start so many threads; set before they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
#: How often a job is tried whose worker died.
TRIES = 2
#: Seconds that an idle worker has to end by itself.
GRACE = 5.0
#: Characters that are kept of what a silent worker said last.
LAST_WORDS = 2000


def available_cores() -> int:
    """Cores that this process may use, by affinity and by the quota of its control group."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, _, period = quota.read_text().partition(" ")
        if limit.isdigit():
            cores = min(cores, max(1, int(limit) // int(period)))
    return cores


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for each library of numbers, whether loaded already or not; restored after."""
    from threadpoolctl import threadpool_limits

    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        with threadpool_limits(limits=1):
            if torch:
                torch.set_num_threads(1)
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        if torch:
            torch.set_num_threads(threads)


@dataclasses.dataclass(eq=False)
class Job:
    """A call that a worker makes, and what came of it."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    environment: Mapping[str, str] | None = None
    tries: int = 0
    since: float = 0.0
    done: bool = False
    result: Any = None
    error: BaseException | None = None

    def value(self) -> Any:
        """The result, or the error raised here."""
        if self.error is not None:
            raise self.error
        return self.result


@dataclasses.dataclass(eq=False)
class _Worker:
    process: Any
    pipe: connection.Connection
    environment: Mapping[str, str]
    said: Path | None
    job: Job | None = None


class Pool:
    """Fresh worker processes (a fork with threads may hang) that never run the caller's script."""

    def __init__(
        self,
        workers: int = 1,
        *,
        start: Callable[..., Any] | None = None,
        arguments: tuple[Any, ...] = (),
        apart: bool = False,  # even a single worker is a process of its own
        silent: bool = False,  # what workers print is shown only if one dies
    ) -> None:
        self.workers = max(1, workers)
        nested = multiprocessing.current_process().daemon  # which may have no children
        self._here = (self.workers == 1 and not apart) or nested
        self._start, self._silent = (start, arguments) if start else None, silent
        self._workers: list[_Worker] = []
        self._waiting: collections.deque[Job] = collections.deque()
        if self._here and start:
            start(*arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    @property
    def busy(self) -> list[_Worker]:
        """Workers in the middle of a job."""
        return [worker for worker in self._workers if worker.job]

    def map(self, function: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        """Results in the order of the arguments."""
        if self._here:
            yield from map(function, *iterables)
            return
        jobs = [self.submit(function, *values) for values in zip(*iterables, strict=False)]
        for job in jobs:
            while not job.done:
                self.wait()
            yield job.value()

    def completed(
        self, function: Callable[[Any], Any], values: Iterable[Any]
    ) -> Iterator[tuple[Any, Any]]:
        """Each value with its result, as soon as it is there."""
        if self._here:
            yield from ((value, function(value)) for value in values)
            return
        left = {self.submit(function, value) for value in values}
        while left:
            for job in self.wait():
                left.discard(job)
                yield job.arguments[0], job.value()

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        environment: Mapping[str, str] | None = None,
    ) -> Job:
        """Give a call to a worker that is free, to a new one, or to the next that is."""
        if getattr(function, "__module__", None) == "__main__":
            raise UsageError(
                f"workers cannot import '{function.__name__}': it is part of the script that runs",
                hint="put it into a module, or use workers=1",
            )
        job = Job(function, arguments, environment)
        self._send(job)
        return job

    def wait(self, seconds: float | None = None) -> list[Job]:
        """Wait until a job ends, at most so long; return those that did."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self.busy:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            pipes = {worker.pipe: worker for worker in self._workers}
            ready = connection.wait(list(pipes), left)
            ended = [job for pipe in ready if (job := self._heard(pipes[pipe]))]  # type: ignore[index]
            while self._waiting and self._give(self._waiting[0]):
                self._waiting.popleft()
            if ended or (deadline is not None and time.monotonic() >= deadline):
                return ended
        return []

    def close(self) -> None:
        """End all workers, in the middle of a job if need be."""
        self._waiting.clear()
        for worker in list(self._workers):
            self._end(worker)

    def _send(self, job: Job) -> None:
        if self._waiting or not self._give(job):
            self._waiting.append(job)

    def _give(self, job: Job) -> bool:
        """Whether a worker took the job."""
        idle = [worker for worker in self._workers if worker.job is None]
        fits = [w for w in idle if job.environment in (None, w.environment)]
        if not fits and idle and len(self._workers) >= self.workers:
            self._end(idle[0])
        if not fits and len(self._workers) < self.workers:
            fits = [self._new(job.environment or {})]
        if not fits:
            return False
        worker = fits[0]
        worker.job, job.since = job, time.monotonic()
        try:
            # A worker that is gone is noticed by the end of its pipe, and the job is sent again.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                worker.pipe.send((job.function, job.arguments))
        except BaseException:  # it cannot be sent at all
            worker.job = None
            raise
        return True

    def _new(self, environment: Mapping[str, str]) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        said = None
        if self._silent:
            handle, name = tempfile.mkstemp(prefix="repsim-worker-")
            os.close(handle)
            said = Path(name)
        process = multiprocessing.get_context("spawn").Process(
            target=_work,
            args=(theirs, dict(environment), str(said) if said else None, self._start is not None),
            daemon=True,
        )
        with _script_hidden():
            process.start()
        theirs.close()
        worker = _Worker(process, ours, dict(environment), said)
        self._workers.append(worker)
        if self._start:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                ours.send(self._start)
        return worker

    def _heard(self, worker: _Worker) -> Job | None:
        """The job that a worker ended, if it did."""
        job = worker.job
        try:
            answer: _Answer = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            return self._lost(worker)
        assert job is not None
        worker.job, job.done = None, True
        job.result, job.error = answer.result, answer.error
        if job.error is not None:
            job.error.add_note(f"in a worker process:\n{answer.trace}")
        return job

    def _lost(self, worker: _Worker) -> Job | None:
        """A worker is gone: its job is tried again, or given up."""
        worker.process.join()
        code, job = worker.process.exitcode or 0, worker.job
        words = _end_of(worker.said)
        self._end(worker)
        if job is None:
            return None
        job.tries += 1
        if job.tries < TRIES:
            self._waiting.appendleft(job)
            return None
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        how += " (was memory short?)" if code == -signal.SIGKILL else ""
        message = f"a worker process {how}, {job.tries} times"
        job.done = True
        job.error = ResourceError(f"{message}: {words}" if words else message)
        return job

    def _end(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.pipe.close()
        if worker.job is None:  # it ends by itself, and tidies up
            worker.process.join(GRACE)
        worker.process.kill()
        worker.process.join()
        worker.process.close()
        if worker.said:
            worker.said.unlink(missing_ok=True)


def _end_of(path: Path | None) -> str:
    if path is None or not path.is_file():
        return ""
    return path.read_bytes()[-LAST_WORDS:].decode(errors="replace").strip()


@contextlib.contextmanager
def _script_hidden() -> Iterator[None]:
    """A process that is spawned imports the file of `__main__` again, unless there is none."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _work(
    pipe: connection.Connection, environment: Mapping[str, str], said: str | None, start: bool
) -> None:
    """What a worker does: calls come in, results and errors go out."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends us
    if said:
        with Path(said).open("ab") as handle:
            for stream in (sys.stdout, sys.stderr):
                os.dup2(handle.fileno(), stream.fileno())
    os.environ.update(environment)
    with one_thread(), contextlib.suppress(EOFError):
        begun = _call(pipe) if start else _Answer(None)
        while True:
            answer = _call(pipe)
            answer = answer if begun.error is None else begun
            try:
                pipe.send(answer)
            except Exception as error:  # noqa: BLE001 - what is found cannot be sent
                pipe.send(_Answer(None, TypeError(f"the result cannot be sent: {error}")))


@dataclasses.dataclass(frozen=True)
class _Answer:
    result: Any
    error: Exception | None = None
    trace: str = ""


def _call(pipe: connection.Connection) -> _Answer:
    """Receive a call and make it."""
    data = pipe.recv_bytes()
    try:
        function, arguments = ForkingPickler.loads(data)
        return _Answer(function(*arguments))
    except Exception as error:  # noqa: BLE001 - it is raised where the result is wanted
        trace = traceback.format_exc()
        try:
            ForkingPickler.loads(ForkingPickler.dumps(error))
        except Exception:  # noqa: BLE001 - some errors cannot be made again from what they hold
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return _Answer(None, error, trace)


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)  # nobody is left to report to

    threading.Thread(target=wait, name="end with parent", daemon=True).start()
