"""A unit of work, and the address of its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from repsim.core.errors import UsageError
from repsim.core.files import hash_json

#: Part of every address: raise it when results of the same specification change.
VERSION = "repsim/unit/1"
#: Entry of a specification that says how to work and does not decide what comes out.
HOW = "how"


@dataclasses.dataclass(frozen=True)
class Unit:
    """A unit of work of a study.

    Attributes:
        kind: What is done; a name in `UNIT_KINDS`.
        name: Unique and readable.
        spec: JSON-able: what the result depends on, and under "how" what it does not (device ...).
        needs: Names of units whose results must be there first.
        seconds: Estimate on one core.
        gpus: Accelerators that it wants.
        processes: More than one: it launches so many itself.
    """

    kind: str
    name: str
    spec: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    seconds: float = 0.0
    gpus: float = 0.0
    processes: int = 1


def unit_keys(units: Iterable[Unit]) -> dict[str, str]:
    """Content address of every unit: SHA-256 of kind, specification, and what it needs."""
    keys: dict[str, str] = {}
    for unit in units:
        if unit.name in keys:
            raise UsageError(f"two units of work are called '{unit.name}'")
        for need in unit.needs:
            if need not in keys:
                raise UsageError(f"'{unit.name}' needs '{need}', which does not stand before it")
        spec = {key: value for key, value in unit.spec.items() if key != HOW}
        keys[unit.name] = hash_json([VERSION, unit.kind, spec, [keys[need] for need in unit.needs]])
    return keys
