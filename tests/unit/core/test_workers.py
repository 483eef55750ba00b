"""Workers know how many they may be, and do not outlive who started them."""

import os
import subprocess
import sys
import time
from pathlib import Path

from repsim.core.workers import available_cores

PARENT = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from repsim.core.workers import end_with_parent

def pid_of(_):
    time.sleep(0.05)
    return os.getpid()

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=end_with_parent) as pool:
        pids = set()
        while len(pids) < 2:
            pids |= set(pool.map(pid_of, range(8)))
        print(*pids, flush=True)
        time.sleep(600)
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_there_is_room_for_one_worker_at_least() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(_alive, pids))
        parent.kill()
        parent.wait()
        until = time.monotonic() + 20
        while any(map(_alive, pids)) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(map(_alive, pids))
