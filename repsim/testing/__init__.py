"""Contract kits and tiny models, for the tests of this package and of those that extend it."""

from __future__ import annotations

import importlib
from typing import Any

#: Public name -> module that holds it, imported on first use.
_LATER = {
    "check_arch": "repsim.testing.arch_checks",
    "check_measure": "repsim.testing.measure_checks",
    "check_symmetries": "repsim.testing.symmetry_checks",
    "check_merge_method": "repsim.testing.merge_checks",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'repsim.testing' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(_LATER)
