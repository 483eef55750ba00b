"""`repsim` in forked processes: imported once, started in milliseconds, killed at will."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import importlib
import os
import pkgutil
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: Seconds of CPU after which a run counts as one that hangs.
PATIENCE = 60.0
#: Audit events of Python that change files; a kill may come before any of them.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "open")
_NETWORK = (socket.AF_INET, socket.AF_INET6)
_JIFFY = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Kill:
    """When and whom: after seconds of CPU time, or before the n-th change of a file."""

    seconds: float | None = None
    change: int | None = None
    whom: str = "driver"  # or "worker"

    def __str__(self) -> str:
        when = f"change {self.change}" if self.seconds is None else f"{self.seconds:.2f} s"
        return f"kill -9 of the {self.whom} at {when}"


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a run ended: exit code (negative: signal), what it said, its cost."""

    code: int
    said: str
    seconds: float
    changes: int = 0
    sockets: bool = False

    @property
    def traceback(self) -> str:
        """Why it counts as a defect of the program; empty if it does not."""
        if self.code == -signal.SIGALRM:
            return "hangs"
        if self.code < 0:
            return f"dies of signal {-self.code}"
        if self.sockets:
            return "opens a socket to the network"
        for sign in ("unexpected error:", "Traceback (most recent", "panicked at"):
            if sign in self.said:
                return next(line for line in self.said.splitlines() if sign in line)
        units_failed = self.code == 1 and "failed · " in self.said  # as `study run` documents
        expected = self.code in (0, 2, 3, 4, 5, 10) or units_failed
        return "" if expected else f"exit code {self.code}"


def warm() -> None:
    """Import all that verbs need, so that a fork has it."""
    import repsim

    for module in pkgutil.walk_packages(repsim.__path__, "repsim."):
        if not module.name.endswith("__main__") and ".data." not in module.name:
            importlib.import_module(module.name)
    for name in ("transformers.models.llama.modeling_llama", "matplotlib.backends.backend_agg",
                 "matplotlib.backends.backend_svg", "pyarrow.parquet", "safetensors.torch",
                 "sklearn.isotonic", "tqdm", "fsspec.implementations.local"):  # fmt: skip
        importlib.import_module(name)


def run(arguments: Sequence[str], folder: Path, **options: Any) -> Ended:
    """Run the command line in `folder`, with the options of `start`."""
    return start(arguments, folder, **options).end()


@dataclasses.dataclass(frozen=True)
class Begun:
    """A run in progress."""

    pid: int
    pipe: int
    said: Path
    counted: Path
    kill: Kill | None

    def end(self) -> Ended:
        """Wait until it ends, or kill it."""
        code, seconds, said = _watch(self.pid, self.pipe, self.kill)
        counts = (self.counted.read_text().split() if self.counted.exists() else []) or ["0"]
        self.said.write_bytes(said)
        text = said.decode("utf-8", "replace")
        return Ended(code, text, seconds, int(counts[0]), sockets="socket" in counts)


def start(
    arguments: Sequence[str],
    folder: Path,
    *,
    cache: Path,
    kill: Kill | None = None,
    limits: Mapping[int, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    variables: Mapping[str, str | None] | None = None,
    user: int | None = None,
    name: str = "run",
) -> Begun:
    """Start the command line in `folder`.

    Args:
        arguments: What stands after `repsim`.
        folder: Working folder.
        cache: `REPSIM_CACHE`.
        kill: A SIGKILL, and when.
        limits: Resource limits (`resource.RLIMIT_AS` ...); of memory: beyond what is in use.
        settings: `module:NAME` -> value set in the process before it starts.
        variables: Environment; None removes one.
        user: Number of the user to become.
        name: Tells apart what several of one folder say.
    """
    said, counted = cache.parent / f"{name}.said", cache.parent / f"{name}.changes"
    counted.unlink(missing_ok=True)
    # What it says goes through a pipe: a limit on the size of files is not one on words.
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.set_blocking(ours, False)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.setpgid(0, 0)
            counter = os.open(counted, os.O_WRONLY | os.O_CREAT, 0o644)
            _enter(theirs, folder, cache, limits or {}, variables or {})
            for place, value in (settings or {}).items():
                module, _, name = place.partition(":")
                setattr(importlib.import_module(module), name, value)
            if user is not None:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            _count(counter, kill.change if kill and kill.whom == "driver" else None)
            code = _main(list(arguments))
        except BaseException:  # noqa: BLE001 - of the campaign itself: it must be seen
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, MemoryError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    os.close(theirs)
    return Begun(pid, ours, said, counted, kill)


def _enter(
    out: int, folder: Path, cache: Path, limits: Mapping[int, int],
    variables: Mapping[str, str | None],
) -> None:  # fmt: skip
    """The process as it would have been started by a shell."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(folder)
    os.environ |= {"REPSIM_CACHE": str(cache), "REPSIM_QUIET": "1", "HF_HUB_OFFLINE": "1"}
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    if hasattr(os, "sched_setaffinity"):  # comparisons then sweep in one process
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[os.getpid() % 2 - 1]})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for limit, value in limits.items():
        used = _memory_in_use() if limit == resource.RLIMIT_AS else 0
        resource.setrlimit(limit, (used + value, used + value))


def _memory_in_use() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _count(handle: int, deadly: int | None) -> None:
    """Count changes of files; die before the deadly one."""
    seen = 0

    def audit(event: str, values: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "socket.getaddrinfo" or (event == "socket.__new__" and values[1] in _NETWORK):
            os.pwrite(handle, f"{seen:<8d} socket".encode(), 0)
        if event not in CHANGES or (event == "open" and not _writes(values)):
            return
        seen += 1
        if seen == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if not os.fstat(handle).st_size > 12:  # a socket stays noted
            os.pwrite(handle, f"{seen:<8d}".encode(), 0)

    sys.addaudithook(audit)


def _writes(values: tuple[Any, ...]) -> bool:
    flags = values[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


def _main(arguments: list[str]) -> int:
    from repsim.cli.main import main

    sys.argv = ["repsim", *arguments]
    try:
        main(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0


def _watch(pid: int, pipe: int, kill: Kill | None) -> tuple[int, float, bytes]:
    """Wait for the end, or bring it about; nothing of the run is left behind."""
    said = bytearray()
    due = kill.seconds if kill else None
    started, used, code = time.monotonic(), 0.0, 0
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        said += _read(pipe)
        if ended:
            used, code = usage.ru_utime + usage.ru_stime, os.waitstatus_to_exitcode(status)
            break
        used = _cpu_seconds(pid)
        if due is not None and used >= due:
            due = None
            victims = [pid] if kill and kill.whom == "driver" else _children(pid)[:1]
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
        if used > PATIENCE or time.monotonic() - started > 10 * PATIENCE:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            code = -signal.SIGALRM
            break
        time.sleep(0.002)
    _end_group(pid)
    said += _read(pipe)
    os.close(pipe)
    return code, used, bytes(said)


def _read(pipe: int) -> bytes:
    data = b""
    with contextlib.suppress(BlockingIOError):
        while more := os.read(pipe, 1 << 20):
            data += more
    return data


def _end_group(pid: int) -> None:
    """Workers notice that their parent is gone; those that do not within 2 s are ended."""
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        try:
            os.killpg(pid, 0)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    listed = [int(word) for word in path.read_text().split()] if path.exists() else []
    # The first may be the resource tracker of multiprocessing; workers come after it.
    return listed[::-1]


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process and of its children that live."""
    total = 0.0
    for one in (pid, *_children(pid)):
        with contextlib.suppress(OSError, IndexError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / _JIFFY
    return total
