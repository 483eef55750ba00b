"""What measuring parents costs, held against what it is to spare: merging them and looking."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from repsim.core.atlas import Atlas
from repsim.core.formatting import brief, percent
from repsim.mergeability.feature_sets import TIER_SETS
from repsim.mergeability.features.tiers import ORACLE

#: Parameters of models -> the most that measuring them may cost, as a share of merging and scoring:
#: of small models all of it is overhead. Models count to the size that is nearest.
MOST_SHARE = {1e6: 0.25, 135e6: 0.05}


@dataclasses.dataclass(frozen=True)
class Cost:
    """Processor seconds of one set of tiers, over groups of parents of one order of size."""

    features: str  # name of the set of tiers
    size: float  # a key of `MOST_SHARE`
    share: float  # median over groups: measuring over merging in every way and scoring
    total: float  # of all groups together: activations that groups share count once
    measuring: float  # median seconds of a group, as in the next line
    merging: float
    ways: float
    groups: int
    models: str  # what was measured, in words

    @property
    def most(self) -> float:
        """The largest share that is aimed at."""
        return MOST_SHARE[self.size]

    @property
    def words(self) -> str:
        """Why the share is what it is, and what it would take to stay under the bar."""
        said = (
            f"a group is measured in {brief(self.measuring)} s, merged in {self.ways:g} ways and "
            f"scored in {brief(self.merging)} s (medians of {self.groups} groups, all together "
            f"{percent(self.total)}; {self.models})"
        )
        if self.share < self.most:
            return said
        factor = self.share / self.most
        return f"{said}: merging and scoring would have to take {factor:.1f} times as long"


def costs_of(atlases: Sequence[Atlas]) -> list[Cost]:
    """What each set of tiers costs, as a share of merging in every way and scoring, by size."""
    by_size: dict[float, list[Atlas]] = {}
    for atlas in atlases:
        sizes = [row["parameters"] for row in atlas.models.rows() if row["parameters"]]
        typical = statistics.median(sizes) if sizes else min(MOST_SHARE)
        near = min(MOST_SHARE, key=lambda size: abs(math.log(size / typical)))
        by_size.setdefault(near, []).append(atlas)
    return [cost for size in sorted(by_size) for cost in _costs(size, by_size[size])]


def _costs(size: float, atlases: Sequence[Atlas]) -> list[Cost]:
    measured = [part for atlas in atlases for part in _groups(atlas)]
    models = "; ".join(dict.fromkeys(_models(atlas) for atlas in atlases))
    found = []
    for name, tiers in {**TIER_SETS, ORACLE: ("oracle",)}.items():
        whole = [
            (sum(spent[tier] for tier in tiers), sum(merging), len(merging))
            for spent, merging in measured
            if set(tiers) <= set(spent)
        ]
        if whole:
            seconds, merging, ways = (list(column) for column in zip(*whole, strict=True))
            found.append(Cost(
                name, size, statistics.median(s / m for s, m, _ in whole),
                sum(seconds) / sum(merging),
                statistics.median(seconds), statistics.median(merging), statistics.median(ways),
                len(whole), models,
            ))  # fmt: skip
    return found


def _groups(atlas: Atlas) -> Iterator[tuple[Mapping[str, float], list[float]]]:
    """Seconds by tier, and seconds of each merge, of every group that has both."""
    measuring: dict[str, dict[str, float]] = {}
    for row in atlas.costs.rows():
        spent = measuring.setdefault(row["parents"], {})
        spent[row["tier"]] = spent.get(row["tier"], 0.0) + row["seconds"]
    merging: dict[str, dict[str, float]] = {}
    for row in atlas.merges.rows():
        if row["seconds"] is not None:
            merging.setdefault(row["parents"], {})[row["merge"]] = row["seconds"]
    for parents, spent in measuring.items():
        if sum(merging.get(parents, {}).values()) > 0:
            yield spent, list(merging[parents].values())


def _models(atlas: Atlas) -> str:
    """Size of the models, and how much text each merge was scored on."""
    sizes = sorted({row["parameters"] for row in atlas.models.rows() if row["parameters"]})
    ends = dict.fromkeys(f"{size / 1e6:.1f}" for size in sizes[:1] + sizes[-1:])
    said = f"{' to '.join(ends)} million parameters" if ends else "models of a size not stated"
    study: Mapping[str, Any] = atlas.info.get("study") or {}
    most = (study.get("evaluation") or {}).get("max_bytes")
    return f"{said}, {most / 1000:g} kB of text per language scored" if most else said
