"""Applicability domain: which merges a predictor may be asked about, and why it refuses others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from repsim.core.formatting import brief
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.reasons import label_of
from repsim.mergeability.regressors import feature_values
from repsim.stats.additive import rounded
from repsim.stats.local import spread_of, standardised

#: How far beyond known values a feature may lie, in their standard deviations.
TOLERANCE = 1.0
#: Share of known merges that count as near enough to others.
NEAR_ENOUGH = 0.99
#: Distances below this, in standard deviations, are none.
LEAST_DISTANCE = 0.01
#: Features of which one value only among known merges means that others are another kind of merge.
CATEGORIES = {
    "same_architecture_worst": "the parents are of different architectures",
    "same_shape_worst": "the parents have different shapes",
    "same_tokenizer_worst": "the parents have different tokenizers",
}


@dataclasses.dataclass(frozen=True)
class Domain:
    """Where known merges lie."""

    levels: tuple[str, ...]
    features: tuple[str, ...]
    ranges: Mapping[str, tuple[float, float]]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    reach: float
    categories: Mapping[str, float]
    most_parents: int
    usual: tuple[str, ...]
    typical: float = 0.0  # distance of a known merge to the nearest that shares no model with it

    def points(self, table: EvidenceTable) -> np.ndarray:
        """Features of each row in units of the spread of known merges."""
        values = feature_values(table, self.features)
        return standardised(values, np.array(self.centre), np.array(self.scale))

    def refusals(
        self, table: EvidenceTable, distance: np.ndarray, *, of_method: bool = True
    ) -> list[str]:
        """Why it cannot say, for each row and its distance to known ones; empty where it can."""
        factor, sizes = table.factor, [len(parents) for parents in table.parents]
        missing = np.full(len(table), np.nan)
        names = (*self.categories, *self.usual, *self.features)
        values = {name: table.features.get(name, missing) for name in names}
        said = []
        for row in range(len(table)):
            why = self._of_kind(values, row) or self._of_values(values, row)
            if of_method and factor[row] not in self.levels:
                method, alignment = table["method"][row], table["alignment"][row]
                after = "" if alignment == "none" else f" after alignment by {alignment}"
                why = f"no known merge was made by '{method}'{after}"
            elif not why and sizes[row] > self.most_parents:
                why = f"{sizes[row]} parents, known merges have {self.most_parents} at most"
            elif not why and distance[row] > self.reach:
                why = (
                    f"no known merge is near: the nearest is {distance[row]:.2f} standard "
                    f"deviations away (root mean square over features), and known merges lie "
                    f"within {self.reach:.2f} of one another"
                )
            said.append(why)
        return said

    def _of_kind(self, values: Mapping[str, np.ndarray], row: int) -> str:
        for name, only in self.categories.items():
            value = values[name][row]
            if np.isfinite(value) and value != only:
                return CATEGORIES[name]
        return ""

    def _of_values(self, values: Mapping[str, np.ndarray], row: int) -> str:
        missing = [name for name in self.usual if not np.isfinite(values[name][row])]
        if len(missing) > len(self.usual) / 3:
            return (
                f"{len(missing)} of {len(self.usual)} features are not known: "
                f"{'; '.join(map(label_of, missing[:4]))}"
                f"{'; and others' if len(missing) > 4 else ''}"
            )
        for name, scale in zip(self.features, self.scale, strict=True):
            value = values[name][row]
            low, high = self.ranges[name]
            if value < low - TOLERANCE * scale or value > high + TOLERANCE * scale:
                return (
                    f"{label_of(name)} is {brief(value)}, known merges have {brief(low)} to "
                    f"{brief(high)}"
                )
        return ""

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Domain:
        """Read what `to_json` wrote."""
        lists = ("levels", "features", "centre", "scale", "usual")
        made = {name: tuple(document[name]) for name in lists}
        ranges = {name: (low, high) for name, (low, high) in document["ranges"].items()}
        return cls(
            **made, ranges=ranges, reach=document["reach"], categories=document["categories"],
            most_parents=document["most_parents"], typical=document.get("typical", 0.0),
        )  # fmt: skip


def nearest_distance(points: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Root mean square distance of each point to the nearest known one."""
    if not len(known):
        return np.full(len(points), np.inf)
    # |a - b|^2 by parts: rows times rows times features would not fit for large tables.
    square = (points**2).sum(1)[:, None] + (known**2).sum(1)[None, :] - 2 * points @ known.T
    return np.sqrt(np.maximum(square.min(axis=1), 0.0) / points.shape[1])


def fit_domain(table: EvidenceTable, features: Sequence[str]) -> Domain:
    """Draw the borders around known merges."""
    centre, scale = (np.array(rounded(v)) for v in spread_of(feature_values(table, features)))
    points = standardised(feature_values(table, features), centre, scale)
    known = {name: table.features[name] for name in features}
    ranges = {name: (float(np.nanmin(v)), float(np.nanmax(v))) for name, v in known.items()}
    categories = {}
    for name in CATEGORIES:
        if name in table.features:
            values = table.features[name]
            found = set(values[np.isfinite(values)].tolist())
            if len(found) == 1:
                categories[name] = found.pop()
    usual = [name for name, values in known.items() if np.isfinite(values).mean() > 0.95]
    typical, reach = _distances(table, points)
    return Domain(
        levels=tuple(sorted(set(table.factor))),
        features=tuple(features),
        ranges=ranges,
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        reach=reach,
        typical=typical,
        categories=categories,
        most_parents=max(len(parents) for parents in table.parents),
        usual=tuple(usual),
    )


def _distances(table: EvidenceTable, points: np.ndarray) -> list[float]:
    """Usual and largest distance of known merges to the nearest of other models."""
    from repsim.mergeability.splits import incidence

    found, _ = incidence(table)
    distance = []
    for members in np.unique(found, axis=0):
        mine = (found == members).all(axis=1)
        others = ~found[:, members].any(axis=1)
        if others.any():
            distance.append(nearest_distance(points[mine], points[others]))
    if not distance:
        return [LEAST_DISTANCE, float("inf")]
    typical, reach = np.quantile(np.concatenate(distance), (0.5, NEAR_ENOUGH))
    return rounded([max(typical, LEAST_DISTANCE), reach])
