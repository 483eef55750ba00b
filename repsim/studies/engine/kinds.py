"""What can be done: kinds of units, each imported only by the process that carries one out."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from repsim.core.registry import Registry

if TYPE_CHECKING:
    from repsim.studies.engine.workspace import Workspace

#: Specification, results of what it needs by name, workspace -> a JSON-able result.
UnitFunction: TypeAlias = "Callable[[Mapping[str, Any], Mapping[str, Any], Workspace], Any]"

UNIT_KINDS: Registry[UnitFunction] = Registry("kind of unit", entry_point_group="repsim.unit_kinds")
for _kind, _place in {
    "pretrain": "repsim.studies.units.training:pretrain_unit",
    "control": "repsim.studies.units.controls:control_unit",
    "score": "repsim.studies.units.scoring:score_unit",
    "features": "repsim.studies.units.measuring:features_unit",
    "merge": "repsim.studies.units.merging:merge_unit",
    "path": "repsim.studies.units.paths:path_unit",
}.items():
    UNIT_KINDS.add(_kind, _place)


def unit_function(kind: str) -> UnitFunction:
    """The function that carries out units of a kind."""
    module, colon, attribute = kind.partition(":")
    if colon:
        return cast("UnitFunction", getattr(importlib.import_module(module), attribute))
    return UNIT_KINDS[kind]
