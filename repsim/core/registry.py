"""Name -> object, loaded only when asked for.

A registry holds either objects or "module:attribute" strings. Strings are imported on first use,
so listing what exists costs nothing, and a lower package can offer an extension point that a higher
one fills without importing it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from repsim.core.errors import RepsimError, unknown_name

T = TypeVar("T")


class DuplicateNameError(RepsimError):
    """Two things were registered under one name."""


class Registry(Generic[T]):
    """A lazy mapping from names to objects of one kind.

    Args:
        kind: What it holds, singular; used in error messages.
        entry_point_group: Python entry points in which other distributions may add to it.
        see: A command that lists the names; shown in errors.

    Example:
        >>> shapes = Registry[float]("shape")
        >>> shapes.add("pi", "math:pi")
        >>> round(shapes["pi"], 2), shapes.names()
        (3.14, ['pi'])
    """

    def __init__(
        self, kind: str, *, entry_point_group: str | None = None, see: str | None = None
    ) -> None:
        self.kind = kind
        self._see = see
        self._group = entry_point_group
        self._entries: dict[str, T | str] = {}
        self._aliases: dict[str, str] = {}
        self._discovered = entry_point_group is None

    def add(self, name: str, entry: T | str, *, aliases: tuple[str, ...] = ()) -> None:
        """Register an object, or the "module:attribute" string that leads to it."""
        for key in (name, *aliases):
            known = self._entries.get(key, self._aliases.get(key))
            if known is not None and known != (entry if key == name else name):
                raise DuplicateNameError(f"{self.kind} '{key}' is registered twice")
        self._entries[name] = entry
        self._aliases.update(dict.fromkeys(aliases, name))

    def register(self, name: str, *, aliases: tuple[str, ...] = ()) -> Callable[[T], T]:
        """Decorator form of `add`."""

        def decorate(entry: T) -> T:
            self.add(name, entry, aliases=aliases)
            return entry

        return decorate

    def __getitem__(self, name: str) -> T:
        self._discover()
        key = self._aliases.get(name, name)
        if key not in self._entries:
            spelled = [alias for alias in self._aliases if alias.lower() == name.lower()]
            raise unknown_name(self.kind, name, [*self._entries, *spelled], see=self._see)
        entry = self._entries[key]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            loaded = cast("T", getattr(importlib.import_module(module), attribute))
            self._entries[key] = loaded
            return loaded
        return entry

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._entries or name in self._aliases

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def names(self) -> list[str]:
        """Canonical names in the order of registration."""
        self._discover()
        return list(self._entries)

    def aliases(self) -> dict[str, str]:
        """Alias -> canonical name."""
        return dict(self._aliases)

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        for point in entry_points(group=self._group or ""):
            if point.name not in self._entries:
                self.add(point.name, point.value)
