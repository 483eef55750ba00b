"""Whose parents the models are, and what those were trained from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError, UsageError
from repsim.core.files import read_json
from repsim.core.model_ref import ModelRef
from repsim.models.inspect import PROVENANCE_FILE, inspect_model, locate

ModelName = str | Path | ModelRef


def find_parents(
    models: Sequence[ModelName], parents: Sequence[ModelName] | None, finding: Mapping[str, Any]
) -> tuple[list[ModelRef], dict[str, tuple[str, ...]]]:
    """All models to score, parents last, and merge -> names of its parents."""

    def inspect(name: ModelName) -> ModelRef:
        return inspect_model(name, generic=True, **finding)

    if not models:
        raise UsageError("there are no models to evaluate")
    refs = [inspect(name) for name in models]
    lineage: dict[str, tuple[str, ...]] = {}
    if parents is not None:
        given = [_among(inspect(name), refs) for name in parents]
        names = tuple(ref.name for ref in given)
        lineage = {ref.name: names for ref in refs if ref.name not in names}
        if not lineage:
            raise UsageError("every model is named as a parent", hint="name the merge too")
        refs += [ref for ref in given if ref not in refs]
    else:
        for ref in list(refs):
            found = [_among(parent, refs) for parent in _stated(ref, refs, bases=False)]
            if found:
                lineage[ref.name] = tuple(parent.name for parent in found)
                refs += [parent for parent in found if parent not in refs]
    _check_names(refs)
    return refs, lineage


def _check_names(refs: Sequence[ModelRef]) -> None:
    names = [ref.name for ref in refs]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"two models are called '{name}'", hint="name them: other=PATH, or names=[...]"
            )


def find_bases(
    refs: list[ModelRef],
    lineage: Mapping[str, Sequence[str]],
    base: ModelName | None,
    *,
    finding: Mapping[str, Any],
    say: Callable[[str, str], None],
) -> dict[str, str]:
    """Merge -> its base, which joins the models; one that is missing is said."""
    if base is not None and not lineage:
        raise UsageError(
            "a base is what parents were trained from, and no merge is among the models",
            hint="name the parents: parents=[...] (--parents)",
        )
    given = base and inspect_model(base, generic=True, **finding)
    found: dict[str, str] = {}
    for name in lineage:
        ref = next(ref for ref in refs if ref.name == name)
        try:
            stated = [given] if given else _stated(ref, refs, bases=True)
        except InputError as error:
            say("note", f"no gain kept of {name}: {error.what}")
            continue
        if stated:
            known = _among(stated[0], refs)
            found[name] = known.name
            if known not in refs:
                refs.append(known)
    _check_names(refs)
    return found


def _among(ref: ModelRef, refs: Sequence[ModelRef]) -> ModelRef:
    """The model of the same weights that is there already, else this one."""
    same = [other for other in refs if other.weights_hash == ref.weights_hash]
    return same[0] if same else ref


def _stated(ref: ModelRef, refs: Sequence[ModelRef], *, bases: bool) -> list[ModelRef]:
    """The parents that a merge's provenance states, by weights first, or its base models."""
    path = locate(ref).folder / PROVENANCE_FILE
    document: Mapping[str, Any] = read_json(path) if path.is_file() else {}
    found = []
    for parent in document.get("parents", ()):
        if bool(parent.get("base")) != bases:
            continue
        digest = parent.get("weights_hash")
        if known := [other for other in refs if digest and other.weights_hash == digest]:
            found.append(known[0])
            continue
        place = _beside(path.parent, str(parent["path"]))
        declared = ModelRef(parent["name"], place, weights_hash=parent.get("weights_hash", ""))
        try:
            found.append(inspect_model(declared, generic=True))
        except InputError as error:
            what, option = ("base", "base") if bases else ("parent", "parents")
            raise InputError(
                f"{what} '{declared.name}' of '{ref.name}' cannot be used: {error.what}",
                hint=f"name it among the models, or say where it is: {option}=... (--{option})",
            ) from None
    return found


def _beside(folder: Path, model: str) -> str:
    """A model that is stated from a merge's folder, as it is named from here."""
    beside = folder / model
    if beside.exists() or "+" not in model:  # BASE+ADAPTER are two paths
        return str(beside) if beside.exists() else model
    return "+".join(_beside(folder, part) for part in model.split("+"))
