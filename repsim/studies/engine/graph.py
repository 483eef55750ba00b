"""The graph of a study at work: what is done, what can start, what cannot any more."""

from __future__ import annotations

import fnmatch
from collections import deque
from collections.abc import Iterable, Sequence, Set
from statistics import median

from repsim.core.errors import UsageError
from repsim.studies.engine.unit import Unit, unit_keys


class Graph:
    """Units and how far they are."""

    def __init__(self, units: Iterable[Unit], there: Set[str] = frozenset()) -> None:
        listed = list(units)
        self.units = {unit.name: unit for unit in listed}
        self.keys = unit_keys(listed)
        self.names = {key: name for name, key in self.keys.items()}
        self.done = {name for name, key in self.keys.items() if key in there}
        self.failed: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.running: set[str] = set()
        self.elsewhere: set[str] = set()
        self.before = len(self.done)
        self._ratios: dict[str, deque[float]] = {}
        self._corrections: dict[str, float] = {}
        self._correction = 1.0
        self._users: dict[str, list[str]] = {name: [] for name in self.units}
        for unit in listed:
            for need in unit.needs:
                self._users[need].append(unit.name)
        ways = self._chain(set(self.units))
        self._order = sorted(self.units, key=lambda name: -ways[name])

    def ready(self) -> list[Unit]:
        """Units that can start now, most urgent first."""
        left = self.left
        return [
            self.units[name]
            for name in self._order
            if name in left and self.done.issuperset(self.units[name].needs)
        ]

    @property
    def left(self) -> set[str]:
        """Units that have not been started and still can be."""
        closed = self.done | self.running | self.elsewhere
        return set(self.units) - closed - set(self.failed) - set(self.skipped)

    def finish(self, name: str, seconds: float | None) -> None:
        """A unit is done; without seconds, by somebody else or before."""
        self.running.discard(name)
        self.elsewhere.discard(name)
        self.done.add(name)
        unit = self.units[name]
        if seconds is not None and unit.seconds > 0:
            self.learn(unit.kind, seconds / unit.seconds)

    def learn(self, kind: str, ratio: float) -> None:
        """Note by how much the estimate of a kind of unit was off."""
        ratios = self._ratios.setdefault(kind, deque(maxlen=50))
        ratios.append(ratio)
        self._corrections[kind] = median(ratios)
        self._correction = median(self._corrections.values())

    def fail(self, name: str, why: str) -> list[str]:
        """A unit failed; return the units that are skipped for it."""
        self.running.discard(name)
        self.failed[name] = why
        skipped: list[str] = []
        open_ones = [name]
        while open_ones:
            for user in self._users[open_ones.pop()]:
                if user not in self.skipped:
                    self.skipped[user] = name
                    skipped.append(user)
                    open_ones.append(user)
        return skipped

    def expected(self, name: str) -> float:
        """Seconds that a unit will take: its estimate, corrected by what its kind really took."""
        unit = self.units[name]
        return unit.seconds * self._corrections.get(unit.kind, self._correction)

    def seconds_left(self, workers: int) -> float:
        """Until all is done with so many workers: the work shared out, or the longest chain."""
        open_ones = self.left | self.running | self.elsewhere
        if not open_ones:
            return 0.0
        total = sum(self.expected(name) for name in open_ones) / max(workers, 1)
        return max(total, max(self._chain(open_ones).values()))

    def _chain(self, names: Set[str]) -> dict[str, float]:
        """Expected seconds from the start of each unit to the end of the study."""
        ways: dict[str, float] = {}
        for name in reversed(self.units):
            if name in names:
                after = [ways[user] for user in self._users[name] if user in ways]
                ways[name] = self.expected(name) + max(after, default=0.0)
        return ways


def selected(units: Sequence[Unit], only: Sequence[str]) -> list[Unit]:
    """Units of some kinds or names, and all that they need."""
    if not only:
        return list(units)
    wanted: set[str] = set()
    for pattern in only:
        fits = {u.name for u in units if u.kind == pattern or fnmatch.fnmatchcase(u.name, pattern)}
        if not fits:
            kinds = ", ".join(dict.fromkeys(unit.kind for unit in units))
            hint = f"kinds are {kinds}; patterns of names: see 'repsim study plan STUDY --json'"
            raise UsageError(f"no unit of work fits '{pattern}'", hint=hint)
        wanted |= fits
    for unit in reversed(units):
        if unit.name in wanted:
            wanted.update(unit.needs)
    return [unit for unit in units if unit.name in wanted]
