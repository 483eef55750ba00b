"""Which features a predictor uses, tier by tier, and which way each may count."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from repsim.core.errors import UsageError, unknown_name
from repsim.mergeability.as_merged import BY_NAME
from repsim.mergeability.evidence import EvidenceTable

#: Tier of what is no forecast: a trial of the average on a few sentences.
ORACLE = "oracle"
#: Name of a set of tiers -> the tiers, each set within the next. The last one looks at a merge,
#: which no forecast does: it is there for validation alone, to be held against the others.
TIER_SETS: dict[str, tuple[str, ...]] = {
    "T0": ("T0",),
    "T0+T1": ("T0", "T1"),
    "T0+T1+T2": ("T0", "T1", "T2"),
    "T0+T1+T2+T3": ("T0", "T1", "T2", "T3"),
    "T0+T1+T2+oracle": ("T0", "T1", "T2", ORACLE),
}
#: Set of a forecast when all is at hand and nothing else is asked for.
DEFAULT_SET = "T0+T1+T2"

#: The few features of each tier that are used. They were named before any outcome was seen, one for
#: each thing that theory makes responsible: common origin, how far the models moved apart, how far
#: they still are once aligned, how much they interfere, what each knows of the language.
CHOSEN: dict[str, tuple[str, ...]] = {
    "T0": ("k", "token_overlap"),
    "T1": ("distance_as_merged", "distance_as_merged_worst", "weight_cosine", "weight_cosine_least",
           "weight_cosine_embedding", "weight_distance_norms", "interference", "update_size",
           "origin_score", "subspace_overlap"),
    "T2": ("similarity_as_merged_early", "similarity_as_merged_middle", "similarity_as_merged_late",
           "hidden_as_merged_middle", "cka_middle", "output_kl_relative", "output_agreement",
           "parent_headroom", "partner_headroom"),
    "T3": ("taylor_retention", "first_order_relative", "quadratic_barrier_relative",
           "gradient_cosine"),
    ORACLE: ("oracle_retention_as_merged", "oracle_worst_retention_as_merged"),
}  # fmt: skip
#: What models state of their history. It is used only where nothing has been measured: most models
#: in the world state nothing, and weights and activations tell nearly as much.
STATED = ("shared_init", "fork_fraction", "own_share", "update_budget", "speakers", "exposure",
          "exposure_worst", "language_overlap")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FeatureUse:
    """A feature as a predictor uses it.

    Attributes:
        name: Name of the feature.
        direction: +1 if the forecast may only rise with it, -1 if it may only fall, 0 for either.
    """

    name: str
    direction: int


def direction_of(name: str) -> int:
    """The direction that a feature was declared with; 0 for a feature that nobody declared.

    Args:
        name: Name of the feature.

    Example:
        >>> direction_of("weight_cosine"), direction_of("distance_as_merged"), direction_of("mine")
        (1, -1, 0)
    """
    from repsim.mergeability.features import FEATURES

    if name in BY_NAME:
        return BY_NAME[name].direction
    return FEATURES[name].direction if name in FEATURES.names() else 0


def feature_uses(
    table: EvidenceTable, tiers: Sequence[str], names: Sequence[str] = ()
) -> tuple[FeatureUse, ...]:
    """The features that a predictor of some tiers uses on a table.

    Args:
        table: Evidence.
        tiers: Tiers.
        names: Features instead of the chosen ones, a direction after a colon if it is not the
            declared one: "cosine:+", "distance:-", "mine:0".

    Returns:
        Features that have a value in at least half of the rows and differ between them. If the
        table has none of the chosen ones (it is somebody else's), all of its features.

    Raises:
        UsageError: The table lacks a feature that was named, or nothing is left.

    Example:
        >>> table = EvidenceTable.from_rows([{"merge": "m"}, {"merge": "n"}],
        ...                                 {"cosine": [0.1, 0.9]}, {"cosine": "table"})
        >>> feature_uses(table, ("table",), ["cosine:+"])
        (FeatureUse(name='cosine', direction=1),)
    """
    if names:
        wanted = [_parsed(name) for name in names]
        for use in wanted:
            if use.name not in table.features:
                raise unknown_name("feature of the table", use.name, table.features)
    else:
        stated = STATED if tuple(tiers) == ("T0",) else ()
        chosen = [*stated, *(name for tier in tiers for name in CHOSEN.get(tier, ()))]
        listed = [name for name in chosen if name in table.features]
        every = [name for name, tier in table.tiers.items() if tier in (*tiers, "table")]
        wanted = [FeatureUse(name, direction_of(name)) for name in listed or every]
    kept = tuple(use for use in wanted if _usable(table[use.name]))
    if not kept:
        raise UsageError(
            f"no feature of {', '.join(tiers)} has values that differ in the table",
            hint="measure the parents, or name features: --features a,b",
        )
    return kept


def tier_sets_of(table: EvidenceTable) -> dict[str, tuple[str, ...]]:
    """The sets of tiers for which a table holds features; "table" for somebody else's."""
    present = set(table.tiers.values())
    if "table" in present and not present & set(CHOSEN):
        return {"table": ("table",)}
    found = {
        name: tiers
        for name, tiers in TIER_SETS.items()
        if tiers[-1] in present and any(f in table.features for f in CHOSEN[tiers[-1]])
    }
    return found or {"table": tuple(sorted(present))}


def forecasting_sets(table: EvidenceTable) -> dict[str, tuple[str, ...]]:
    """The sets of tiers that a forecast may rest on: all but those that look at a merge.

    Args:
        table: Evidence, with features as merged.

    Raises:
        UsageError: Every feature looks at a merge.

    Example:
        >>> from repsim.testing.evidence import planted_evidence
        >>> forecasting_sets(planted_evidence(models=6))
        {'table': ('table',)}
    """
    found = {name: tiers for name, tiers in tier_sets_of(table).items() if ORACLE not in tiers}
    if not found:
        raise UsageError(
            "every feature of the table comes from a trial of the merge, which is no forecast",
            hint="measure the parents, or name features: --features a,b",
        )
    return found


def _parsed(text: str) -> FeatureUse:
    name, colon, sign = text.partition(":")
    signs = {"+": 1, "+1": 1, "-": -1, "-1": -1, "0": 0}
    if not colon:
        return FeatureUse(name, direction_of(name))
    if sign not in signs:
        raise UsageError(f"a direction is +, - or 0, not '{sign}' (in '{text}')")
    return FeatureUse(name, signs[sign])


def _usable(values: np.ndarray) -> bool:
    finite = values[np.isfinite(values)]
    return len(finite) >= max(len(values) / 2, 1) and bool(np.ptp(finite) > 0)
