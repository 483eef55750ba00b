"""Training states: whole or not there, checked when read, the one before as a fall-back."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from repsim.core.aside import written_aside
from repsim.core.errors import InputError, ResourceError
from repsim.core.files import hash_files, read_json, write_json
from repsim.pretraining.metrics import logger

SCHEMA = "repsim/training-state/1"
KEPT = 2
_FILES = ("weights.safetensors", "optimizer.safetensors", "position.json")
_BEST = "best.safetensors"


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """What a run needs to go on."""

    step: int
    weights: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]
    run_key: str
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: SHA-256 of the rows of metrics.jsonl up to here; empty if that is not known.
    metrics: str = ""
    #: What the run key is a hash of; empty in states of versions that did not keep it.
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: Number of processes.
    processes: int = 1
    #: What the run met on its way (`Run.notes`).
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: The weights of the best validation so far, where a run may stop early.
    best: Mapping[str, torch.Tensor] = dataclasses.field(default_factory=dict)

    def told(self) -> TrainingState:
        """The same without tensors."""
        return dataclasses.replace(self, weights={}, optimizer={}, best={})


def step_folder(parent: Path, step: int) -> Path:
    """Where the state or checkpoint of a step lies."""
    return parent / f"step-{step:06d}"


def steps_in(parent: Path) -> list[int]:
    """Steps that have a folder, ascending."""
    names = (path.name for path in parent.glob("step-*") if path.is_dir())
    return sorted(int(name.removeprefix("step-")) for name in names if name[5:].isdigit())


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn a full disk into an error that says what to do."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full and "No space left" not in str(error):
            raise
        raise ResourceError(
            f"the disk is full: {what} could not be written; what was there before is untouched",
            hint="make room and run the same command again: it goes on from the last state",
        ) from error


def save_state(parent: Path, state: TrainingState, *, keep: int | None = KEPT) -> Path:
    """Write a state and drop the oldest beyond `keep`."""
    from safetensors.torch import save_file

    target = step_folder(parent, state.step)
    if target.exists():
        shutil.rmtree(target)
    with disk_errors(f"the training state of step {state.step}"), written_aside(target) as aside:
        aside.mkdir(parents=True)
        save_file(dict(state.weights), aside / _FILES[0])
        save_file(dict(state.optimizer), aside / _FILES[1])
        if state.best:
            save_file(dict(state.best), aside / _BEST)
        told = ("step", "run_key", "versions", "metrics", "settings", "processes", "notes")
        position = {"schema": SCHEMA, **{key: getattr(state, key) for key in told}}
        write_json(aside / _FILES[2], position)
        files = sorted(path.name for path in aside.iterdir())
        write_json(aside / "manifest.json", {name: hash_files([aside / name]) for name in files})
        for path in aside.iterdir():
            force_to_disk(path)
        force_to_disk(aside)
    force_to_disk(parent)
    if keep is not None:
        for step in steps_in(parent)[:-keep]:
            shutil.rmtree(step_folder(parent, step))
    return target


class Saver:
    """Writes behind the training, one thing at a time; its errors are raised by the next call."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saving")
        self._pending: Future[object] | None = None

    def submit(self, write: Callable[[], object]) -> None:
        """Start to write, after what is being written; tensors must be copies."""
        self.wait()
        self._pending = self._thread.submit(write)

    def wait(self) -> None:
        """Until nothing is being written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Let what is being written come to its end."""
        self._thread.shutdown(wait=True)


def force_to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_state(folder: Path) -> TrainingState:
    """Read one state and check it."""
    from safetensors.torch import load_file

    if not folder.is_dir():
        raise InputError(f"there is no training state '{folder}'")
    manifest = read_json(folder / "manifest.json")
    if not isinstance(manifest, dict):
        raise InputError(f"training state '{folder}' is damaged: manifest.json is no mapping")
    files = (*_FILES, _BEST) if _BEST in manifest else _FILES
    for name in files:
        if not (folder / name).is_file():
            raise InputError(f"training state '{folder}' is incomplete: {name} is missing")
        if hash_files([folder / name]) != manifest.get(name):
            raise InputError(f"training state '{folder}' is damaged: checksum of {name}")
    position = read_json(folder / _FILES[2])
    if position.get("schema") != SCHEMA:
        raise InputError(f"training state '{folder}' is not of schema {SCHEMA}")
    return TrainingState(
        step=position["step"],
        weights=load_file(folder / _FILES[0]),
        optimizer=load_file(folder / _FILES[1]),
        run_key=position["run_key"],
        versions=position["versions"],
        metrics=position.get("metrics", ""),
        settings=position.get("settings", {}),
        processes=position.get("processes", 1),
        notes=position.get("notes", {}),
        best=load_file(folder / _BEST) if _BEST in files else {},
    )


def drop_states(parent: Path, step: int) -> None:
    """Remove the states of a step and of those after it."""
    for later in steps_in(parent):
        if later >= step:
            shutil.rmtree(step_folder(parent, later))


def latest_state(parent: Path) -> TrainingState | None:
    """The newest state that is whole; damaged ones are named and removed."""
    if not parent.is_dir():
        return None
    for step in reversed(steps_in(parent)):
        folder = step_folder(parent, step)
        try:
            return read_state(folder)
        except InputError as error:
            logger.warning("%s; falling back to the state before it", error.what)
            shutil.rmtree(folder)
    return None
