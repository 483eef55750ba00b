"""Units with planted behaviour, for the engine: they count, wait, fail and die as they are told."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.errors import InputError
from repsim.studies.engine import Unit, Workspace

KIND = "planted_units:{}"


def total(spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace) -> float:
    """Own number plus those of what it needs; every execution leaves a line in a file."""
    if path := spec.get("how", {}).get("count"):
        with Path(path).open("a") as handle:
            handle.write("x\n")
    workspace.log(f"adding to {len(needs)} numbers")
    return float(spec["x"] + sum(needs.values()))


def fails_unless(
    spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace
) -> str:  # fmt: skip
    if not Path(spec["how"]["file"]).exists():
        sys.stdout.write("looked for the file\n")
        raise InputError("the file is not there")
    return "fine"


def dies_once(spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace) -> str:
    """The process that is first to do it is killed as the kernel would."""
    marker = Path(spec["how"]["file"])
    if not marker.exists():
        marker.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def dies(spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def waits_for(spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace) -> str:
    """Until a file is there; says with another file that it has begun."""
    Path(f"{spec['how']['file']}.begun").write_text(str(os.getpid()))
    deadline = time.monotonic() + 60
    while not Path(spec["how"]["file"]).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return "there"


def pauses(spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace) -> str:
    time.sleep(spec["for"])
    return "rested"


def multiplies(
    spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace
) -> list[float]:
    """Sums whose last bits depend on how they are shared out over threads."""
    matrix = np.random.default_rng(spec["seed"]).standard_normal((400, 400)).astype(np.float32)
    for _ in range(20):
        matrix = np.tanh(matrix @ matrix / 20)
    folder = workspace.folder(f"models/{spec['seed']}")
    (folder / "weights.bin").write_bytes(matrix.tobytes())
    workspace.publish(folder, f"models/{spec['seed']}")
    return [float(value) for value in matrix[0, :5]]


def reads(spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace) -> float:
    data = (workspace.fetch(f"models/{spec['seed']}") / "weights.bin").read_bytes()
    return float(np.frombuffer(data, dtype=np.float32).astype(np.float64).sum())


def gives(spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace) -> Any:
    return {"nan": float("nan"), "object": object()}[spec["what"]]


def shouts(spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace) -> str:
    """Writes to the standard output of the process, below Python, as C libraries do."""
    os.write(1, b"not a report\n")
    return "quiet again"


def unit(kind: str, name: str, needs: tuple[str, ...] = (), **spec: Any) -> Unit:
    """A unit of a kind of this file."""
    return Unit(KIND.format(kind), name, spec, needs, seconds=1.0)


def small_graph() -> list[Unit]:
    """Four matrices, what is read of each, and the sum."""
    seeds = range(4)
    made = [unit("multiplies", f"make {seed}", seed=seed) for seed in seeds]
    read = [unit("reads", f"read {seed}", (f"make {seed}",), seed=seed) for seed in seeds]
    return [*made, *read, unit("total", "sum", tuple(f"read {seed}" for seed in seeds), x=1)]
