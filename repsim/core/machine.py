"""What this process may still take of the machine."""

from __future__ import annotations

import os
from pathlib import Path


def memory_left() -> int:
    """Bytes that this process may still take: of the machine, its container and `ulimit -v`."""
    found = [_free()]
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            found.append(int((group / limit).read_text()) - int((group / used).read_text()))
        except (OSError, ValueError):  # no such container, or no limit ("max")
            continue
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            found.append(most - pages * os.sysconf("SC_PAGE_SIZE"))
    except (ImportError, OSError):
        pass
    return max(0, min(found))


def _free() -> int:
    """Memory of the machine that is free or can be freed; without bound where it is not told."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 1 << 62
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(told.get("MemAvailable", "4611686018427387 kB").split()[0]) * 1024
