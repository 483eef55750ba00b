"""Outcomes of merges that anybody made: one schema for tables of others."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from repsim.core.atlas import split_parents
from repsim.core.table import Table

#: Before the names of features: columns of others never collide with features of our own.
FEATURE = "feature:"


class OutcomeTable(Table):
    """One row per merge (and language, where outcomes are told by language)."""

    SCHEMA = "repsim/outcomes/1"
    STEM = "outcomes"
    OPEN = FEATURE
    COLUMNS: ClassVar = {
        "parents": ("string", "names joined by ' + '"),
        "method": ("string", "merge method, with its alignment or variant"),
        "source": ("string", "study, backbone or size; models of two sources are not the same"),
        "language": ("string", "language or task that was scored; empty: the whole merge"),
        "score": ("float", "of the merge, in units of its makers"),
        "floor": ("float", "score of an untrained model or of chance"),
        "ceiling": ("float", "score of the parents"),
        "outcome": ("float", "what is forecast: (score - floor) / (ceiling - floor), or the score"),
    }
    HINT = "read one with repsim.mergeability.read_outcomes"

    @property
    def features(self) -> list[str]:
        """Names of the features, without the prefix."""
        return [name.removeprefix(FEATURE) for name in self.columns if name.startswith(FEATURE)]

    @property
    def members(self) -> list[tuple[str, ...]]:
        """Parents of each row."""
        return [split_parents(joined) for joined in self.column("parents")]

    def feature(self, name: str) -> np.ndarray:
        """One feature `[rows]`, NaN where it is not known."""
        return self.column(FEATURE + name)

    def values(self) -> np.ndarray:
        """Features `[rows, features]`, NaN where one is not known."""
        columns = [self.feature(name) for name in self.features]
        return np.stack(columns, axis=1) if columns else np.empty((len(self), 0))
