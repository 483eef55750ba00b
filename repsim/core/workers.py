"""Processes that share work: how many there is room for, and when they end."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing import connection
from pathlib import Path


def available_cores() -> int:
    """Cores that this process may use, by affinity and by the quota of its control group.

    Example:
        >>> available_cores() >= 1
        True
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, _, period = quota.read_text().partition(" ")
        if limit.isdigit():
            cores = min(cores, max(1, int(limit) // int(period)))
    return cores


def end_with_parent() -> None:
    """End this worker as soon as the process that started it is gone, however that ended.

    A worker of a pool waits for tasks; if its parent is killed it would wait for ever. To be called
    when the worker starts; without effect in a process that no other one started.

    Example:
        >>> end_with_parent()
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)  # nobody is left to report to

    threading.Thread(target=wait, name="end with parent", daemon=True).start()
