"""Atlases that ship with the package, found by name."""

from __future__ import annotations

from pathlib import Path

from repsim.core.atlas import Atlas
from repsim.core.errors import InputError

SHIPPED = Path(__file__).parent


def shipped_atlases() -> list[str]:
    """Names of the atlases that ship with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/atlas.json"))


def load_atlas(name: str | Path) -> Atlas:
    """Read an atlas from its folder, or one that ships with the package by its name.

    Example:
        >>> load_atlas("cpu_atlas").info["study"]["corpus"]
        'bible'
    """
    if not Path(name).exists() and str(name) in shipped_atlases():
        return Atlas.load(SHIPPED / name)
    if not Path(name).exists():
        known = ", ".join(shipped_atlases())
        raise InputError(f"there is no atlas '{name}'", hint=f"a folder, or one of: {known}")
    return Atlas.load(name)
