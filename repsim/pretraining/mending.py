"""What an earlier go left: whether it is whole, and what has to be made again if it is not."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError, UsageError
from repsim.pretraining.checkpoint import drop_states, step_folder, steps_in
from repsim.pretraining.folder import (
    MEMORY,
    PROVENANCE,
    STOPPED,
    WEIGHTS,
    Described,
    damaged_file,
    is_whole,
    read_provenance,
    read_weights,
    remove,
    write_model,
)
from repsim.pretraining.metrics import logger
from repsim.pretraining.settings import Changes, changes


def complete(folder: Path, about: Described) -> bool:
    """Whether a run and all its checkpoints are there and whole; nothing is changed."""
    known = _provenance(folder)
    if known is None:
        return False
    told = _changes(folder, known, about)
    if told and told.length:
        return False
    if told:
        logger.warning("%s  was trained with other settings: %s", about.plan.name, told)
    steps = _checkpoints(about, known)
    return not any(wrong for _, wrong in _damage(folder, known, steps, missing=True))


def _checkpoints(about: Described, known: dict[str, Any]) -> tuple[int, ...]:
    """Steps of checkpoints that a finished run has: those up to where it stopped."""
    end = known.get(STOPPED, {}).get("stopped", about.plan.last_step)
    return tuple(step for step in about.plan.checkpoints if step <= end)


def mend(folder: Path, about: Described) -> None:
    """Drop what is damaged of a run, each with a note, so that training makes it again."""
    known = _provenance(folder)
    if known is None:
        if (folder / PROVENANCE).exists():
            _note(folder / PROVENANCE)
            (folder / PROVENANCE).unlink()
    elif (told := _changes(folder, known, about)) and told.length:
        _refuse_without_state(folder, known, told)
        (folder / PROVENANCE).unlink()
        known = None
    steps = steps_in(folder / "checkpoints")
    for place, wrong in list(_damage(folder, known, tuple(steps), missing=known is not None)):
        _note(place / wrong)
        if _rewritten(place, wrong, about):  # beside weights that are whole
            continue
        (folder / PROVENANCE).unlink(missing_ok=True)  # first: from here on it is not complete
        if place != folder:
            remove(place)
            drop_states(folder / "state", int(place.name.removeprefix("step-")))
    for step in _checkpoints(about, known) if known is not None else ():
        if not step_folder(folder / "checkpoints", step).is_dir():
            (folder / PROVENANCE).unlink(missing_ok=True)
            drop_states(folder / "state", step)


def check_curve(folder: Path) -> None:
    """Say so if the metrics of a complete run are not those that it wrote; they are kept."""
    known, path = _provenance(folder) or {}, folder / "metrics.jsonl"
    if not known.get("metrics"):
        return
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != known["metrics"]:
        logger.warning("'%s' is damaged: the curve is not that of the run (--fresh trains it "
                       "again)", path)  # fmt: skip


def _note(path: Path) -> None:
    logger.warning("'%s' is missing or damaged and is made anew", path)


def _provenance(folder: Path) -> dict[str, Any] | None:
    """As `read_provenance`; None if it is damaged."""
    try:
        known = read_provenance(folder)
    except InputError:
        return None
    needed = {"run_key", "bits_per_byte", "step", "dtype"}
    return known if known and needed <= known.keys() and is_whole(known) else None


def _changes(folder: Path, known: dict[str, Any], about: Described) -> Changes | None:
    """What differs from the settings of a finished model, None if nothing does."""
    if known["run_key"] == about.key:
        return None
    refusal = f"'{folder}' holds a model of another configuration"
    stated = known.get("settings", {})
    return changes(stated, about.settings, int(known["step"]), refusal, done=True)


def _refuse_without_state(folder: Path, known: dict[str, Any], told: Changes) -> None:
    """A finished run can become longer only where its last state was kept."""
    if int(known["step"]) not in steps_in(folder / "state"):
        raise UsageError(
            f"'{folder}' is finished and kept no training state to go on from: {told}",
            hint="set saving.keep_state before a run that may become longer, or fork from its end",
        )


def _damage(
    folder: Path, known: dict[str, Any] | None, steps: tuple[int, ...], *, missing: bool
) -> Iterator[tuple[Path, str]]:
    """Model folders of a run that are not whole, each with its first wrong file."""
    if known is not None and (wrong := damaged_file(folder, known)):
        yield folder, wrong
    for step in steps:
        place = step_folder(folder / "checkpoints", step)
        if not place.is_dir():
            if missing:
                yield place, WEIGHTS
            continue
        about = _provenance(place)
        if wrong := damaged_file(place, about) if about else PROVENANCE:
            yield place, wrong


def _rewritten(place: Path, wrong: str, about: Described) -> bool:
    """Whether the weights of a folder are whole, so that the rest could be written beside them."""
    known = _provenance(place)
    if known is None:
        return False
    only_weights = {**known, "files": None}
    if damaged_file(place, only_weights):
        return False
    step, scores = int(known["step"]), known["bits_per_byte"]
    weights = read_weights(place)
    notes = {key: known[key] for key in (STOPPED, MEMORY) if key in known}
    about = dataclasses.replace(about, notes=notes)
    write_model(place, weights, about, step, scores, known["dtype"], known.get("metrics", ""))
    return True
