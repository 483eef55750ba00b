"""From evidence to the columns of a linear law: factors, and monotone bases of features."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse
from repsim.mergeability.models.base import rounded

#: Where along the values of a feature the bends of its curve may lie.
QUANTILES = (0.02, 0.2, 0.4, 0.6, 0.8, 0.98)
#: Methods that drop entries at random and enlarge the others: noise beside what models moved.
AT_RANDOM = ("dare_linear", "dare_ties", "della", "della_linear")
#: Kind of merge -> which rows are of it. Curves may be steeper there than for the others.
KINDS_OF_MERGE: dict[str, Callable[[EvidenceTable], np.ndarray]] = {
    "aligned": lambda table: table["alignment"] != "none",
    "at random": lambda table: np.isin(table["method"], AT_RANDOM),
}


@dataclasses.dataclass(frozen=True)
class Basis:
    """A feature as columns.

    Attributes:
        feature: Its name.
        direction: +1 or -1 if it may count one way only.
        knots: Bends of the curve: column j rises from 0 to 1 between knots j and j + 1 (an I-spline
            of the first order), so that coefficients of one sign make a monotone curve which is
            flat outside the knots.
        centre: Mean of each column over known merges; a value that is missing counts as the mean.
    """

    feature: str
    direction: int
    knots: tuple[float, ...]
    centre: tuple[float, ...]

    def columns(self, values: np.ndarray) -> np.ndarray:
        """`[rows, knots - 1]`, centred."""
        raw = ramps(values, self.knots) - np.array(self.centre)
        return np.where(np.isfinite(values)[:, None], raw, 0.0)


def ramps(values: np.ndarray, knots: Sequence[float]) -> np.ndarray:
    """Column j rises from 0 to 1 between knots j and j + 1.

    Example:
        >>> ramps(np.array([0.0, 0.5, 2.0, 9.0]), [0, 1, 3]).tolist()
        [[0.0, 0.0], [0.5, 0.0], [1.0, 0.5], [1.0, 1.0]]
    """
    low, high = np.array(knots[:-1]), np.array(knots[1:])
    with np.errstate(invalid="ignore"):
        return np.clip((values[:, None] - low) / (high - low), 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Design:
    """Columns of a linear law.

    Attributes:
        levels: Methods with alignments, one column each.
        bases: Features.
        kinds: Kinds of merges for which curves may be steeper than for the others; may be empty.
    """

    levels: tuple[str, ...]
    bases: tuple[Basis, ...]
    kinds: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The feature that each column belongs to; "method" for the factors."""
        once = [basis.feature for basis in self.bases for _ in basis.centre]
        return ["method"] * len(self.levels) + once * (1 + len(self.kinds))

    @property
    def signs(self) -> np.ndarray:
        """Sign that the coefficient of each column must have; 0 for either."""
        once = [basis.direction for basis in self.bases for _ in basis.centre]
        return np.array([0] * len(self.levels) + once * (1 + len(self.kinds)))

    @property
    def places(self) -> tuple[slice, ...]:
        """Columns of the curves of all merges, then of what each kind adds to them."""
        first = len(self.levels)
        size = sum(len(basis.centre) for basis in self.bases)
        starts = [first + number * size for number in range(1 + len(self.kinds))]
        return tuple(slice(start, start + size) for start in starts)

    def members(self, table: EvidenceTable) -> np.ndarray:
        """`[rows, kinds]` of booleans: which rows are merges of which kind."""
        found = [KINDS_OF_MERGE[kind](table) for kind in self.kinds]
        return np.stack(found, axis=1) if found else np.zeros((len(table), 0), dtype=bool)

    def matrix(self, table: EvidenceTable) -> np.ndarray:
        """`[rows, columns]`; a method that is not known has zeros."""
        factor = table.factor
        parts = [np.stack([factor == level for level in self.levels], axis=1).astype(float)]
        curves = [
            basis.columns(
                table.features.get(basis.feature, np.full(len(table), np.nan))
            )
            for basis in self.bases
        ]  # fmt: skip
        every = np.concatenate(curves, axis=1) if curves else np.empty((len(table), 0))
        parts.append(every)
        parts += [every * mine[:, None] for mine in self.members(table).T]
        return np.concatenate(parts, axis=1)

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "levels": list(self.levels),
            "bases": [
                {"feature": b.feature, "direction": b.direction, "knots": list(b.knots),
                 "centre": list(b.centre)}
                for b in self.bases
            ],
            "kinds": list(self.kinds),
        }  # fmt: skip

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Design:
        """Read what `to_json` wrote."""
        bases = tuple(
            Basis(b["feature"], b["direction"], tuple(b["knots"]), tuple(b["centre"]))
            for b in document["bases"]
        )
        return cls(tuple(document["levels"]), bases, tuple(document["kinds"]))


def make_design(
    table: EvidenceTable,
    uses: Sequence[FeatureUse],
    *,
    quantiles: Sequence[float] = QUANTILES,
    by_kind: bool = False,
    monotone: bool = True,
) -> Design:
    """Lay out columns for a table.

    Args:
        table: Known merges.
        uses: Features and their directions.
        quantiles: Where bends may lie; two of them make straight lines.
        by_kind: Whether curves may be steeper for some kinds of merges.
        monotone: Whether declared directions bind.

    Example:
        >>> table = EvidenceTable.from_rows([{"merge": "m"}, {"merge": "n"}], {"x": [0.0, 1.0]},
        ...                                 {"x": "T1"})
        >>> make_design(table, [FeatureUse("x", 1)], quantiles=(0, 1)).names
        ['method', 'x']
    """
    bases = []
    for use in uses:
        values = table[use.name]
        finite = values[np.isfinite(values)]
        knots = tuple(dict.fromkeys(rounded(np.quantile(finite, list(quantiles)))))
        if len(knots) < 2:  # nearly all values are the same: the few others still count
            knots = tuple(dict.fromkeys(rounded([finite.min(), finite.max()])))
        centre = tuple(rounded(ramps(finite, knots).mean(axis=0)))
        bases.append(Basis(use.name, use.direction if monotone else 0, knots, centre))
    shares = {kind: of(table).mean() for kind, of in KINDS_OF_MERGE.items() if by_kind}
    kinds = tuple(kind for kind, share in shares.items() if 0 < share < 1)
    return Design(tuple(sorted(set(table.factor))), tuple(bases), kinds)
