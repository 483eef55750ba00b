"""Workers share calls, never run the caller's script again, and do not outlive who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from repsim.core.errors import RepsimError, UsageError
from repsim.core.pool import Pool, available_cores

#: Functions that workers can import.
MODULE = """
import os, signal, time
from pathlib import Path
from repsim.core.errors import InputError

BEGUN = []
def begin(value): BEGUN.append(value)
def begun(_): return BEGUN[0]
def pid_of(_): time.sleep(0.1); return os.getpid()
def refuse(value): raise InputError(f"no {value}", hint="give another")
def odd(_): return lambda: None
def variable(_): return os.environ.get("MARK"), os.environ["OMP_NUM_THREADS"]
def die_once(path):
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"
def die(_): print("last words", flush=True); os.kill(os.getpid(), signal.SIGKILL)
"""
#: A script without `if __name__ == "__main__"`.
SCRIPT = """
import sys, time
from pathlib import Path
from repsim.core.pool import Pool
import pooled

with Path("ran").open("a") as file:
    file.write("x")
with Pool(2) as pool:
    print(sum(pool.map(abs, range(5))), flush=True)
    pids = set()
    while len(pids) < 2:
        pids |= set(pool.map(pooled.pid_of, range(4)))
    print(*pids, flush=True)
    pool.submit(time.sleep, float(sys.argv[1])) and pool.wait()
"""


@pytest.fixture(autouse=True)
def _importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pooled.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("pooled", None)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _all_gone(pids: list[int]) -> bool:
    until = time.monotonic() + 20
    while any(map(_alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(_alive, pids))


def test_there_is_room_for_one_worker_at_least() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_one_worker_is_this_process() -> None:
    with Pool(1) as pool:
        assert list(pool.map(lambda x: x + 1, [1, 2])) == [2, 3]
        assert dict(pool.completed(lambda x: -x, [1, 2])) == {1: -1, 2: -2}


def test_workers_share_calls_and_errors_come_back(tmp_path: Path) -> None:
    import pooled  # type: ignore[import-not-found]

    with Pool(2, start=pooled.begin, arguments=("mark",)) as pool:
        assert list(pool.map(pooled.begun, range(3))) == ["mark"] * 3
        assert dict(pool.completed(abs, [-2, 1])) == {-2: 2, 1: 1}
        with pytest.raises(RepsimError, match=r"no bread \(hint: give another\)") as caught:
            list(pool.map(pooled.refuse, ["bread"]))
        assert "in a worker process" in caught.value.__notes__[0]
        with pytest.raises(TypeError, match="the result cannot be sent"):
            list(pool.map(pooled.odd, [0]))
        assert list(pool.map(pooled.die_once, [str(tmp_path / "died")])) == ["survived"]
        marked = pool.submit(pooled.variable, 0, environment={"MARK": "1"})
        while not marked.done:
            pool.wait()
        assert marked.value() == ("1", "1")


def test_a_call_that_kills_its_worker_is_given_up() -> None:
    import pooled  # type: ignore[import-not-found]

    with Pool(1, apart=True, silent=True) as pool:
        with pytest.raises(RepsimError, match=r"signal 9 \(was memory short\?\), 2 times: last wo"):
            list(pool.map(pooled.die, [0]))
        assert list(pool.map(abs, [-1])) == [1]


def test_what_only_the_script_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(value: int) -> int:
        return value

    own.__module__ = "__main__"
    with Pool(2) as pool, pytest.raises(UsageError, match="workers cannot import 'own'"):
        list(pool.map(own, [1]))


@pytest.mark.parametrize("end", ["end", "kill", "interrupt"])
def test_a_script_without_a_guard_runs_once_and_takes_its_workers_along(
    tmp_path: Path, end: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), "0" if end == "end" else "600"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "10\n"
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        if end != "end":
            parent.send_signal(signal.SIGKILL if end == "kill" else signal.SIGINT)
        assert parent.wait(90) == {"end": 0, "kill": -9, "interrupt": -2}[end]
        assert _all_gone(pids)
        said = parent.stderr.read() if parent.stderr else ""
    assert (tmp_path / "ran").read_text() == "x"
    assert said.count("Traceback") == (end == "interrupt")
