"""Which features a predictor uses, tier by tier, and which way each may count."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from repsim.core.errors import UsageError, unknown_name
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.features.catalogue import FEATURES, specs
from repsim.mergeability.features.recipe import NAMES, stated_features
from repsim.mergeability.features.spec import FeatureSpec
from repsim.mergeability.features.tiers import FORECASTING, ORACLE

#: Set of a forecast when all is at hand and nothing else is asked for.
DEFAULT_SET = "T0+T1+T2"
#: What parents may state beside what is measured of them, each worth more with those before it.
STATED = ("languages", "history")
#: Name of a set of tiers -> the tiers, each set within the next. The last one looks at a merge,
#: which no forecast does: it is there for validation alone, to be held against the others.
TIER_SETS: dict[str, tuple[str, ...]] = {
    "+".join(tiers): tiers
    for tiers in (
        *(FORECASTING[: count + 1] for count in range(len(FORECASTING))),
        (*DEFAULT_SET.split("+"), ORACLE),
    )
}
#: The same with what parents state; weights do not tell languages, outputs tell them themselves.
STATED_SETS: dict[str, tuple[str, ...]] = {
    "T0+T1+languages": ("T0", "T1", "languages"),
    "T0+T1+history": ("T0", "T1", *STATED),
    "T0+T1+T2+history": ("T0", "T1", "T2", *STATED),
}


@dataclasses.dataclass(frozen=True)
class FeatureUse:
    """A feature as a predictor uses it."""

    name: str
    direction: int


def direction_of(name: str) -> int:
    """The direction that a feature was declared with; 0 for a feature that nobody declared."""
    return FEATURES[name].direction if name in FEATURES else 0


def _used(tier: str, use: str = "measured") -> list[str]:
    """Features of a tier that the predictor uses, in the order of the list."""
    return [spec.name for spec in specs(tier) if spec.use == use]


def feature_uses(
    table: EvidenceTable, tiers: Sequence[str], names: Sequence[str] = ()
) -> tuple[FeatureUse, ...]:
    """The features that a predictor of some tiers uses on a table."""
    if names:
        wanted = [_parsed(name) for name in names]
        for use in wanted:
            if use.name not in table.features:
                raise unknown_name("feature of the table", use.name, table.features)
    else:
        # Metadata alone are nothing but what is stated.
        kinds = STATED if tuple(tiers) == ("T0",) else [kind for kind in STATED if kind in tiers]
        stated = [name for kind in kinds for name in _used("T0", kind)]
        chosen = [*stated, *(name for tier in tiers for name in _used(tier))]
        listed = [name for name in chosen if name in table.features]
        every = [name for name, tier in table.tiers.items() if tier in (*tiers, "table")]
        wanted = [FeatureUse(name, direction_of(name)) for name in listed or every]
    kept = tuple(use for use in wanted if _usable(table.features[use.name]))
    if not kept:
        raise UsageError(
            f"no feature of {', '.join(tiers)} has values that differ in the table",
            hint="measure the parents, or name features: --features a,b",
        )
    return kept


def feature_choices(
    table: EvidenceTable, tiers: Sequence[str], names: Sequence[str] = ()
) -> list[tuple[FeatureUse, ...]]:
    """All features of some tiers, and the few needed most: inner folds choose; or those named."""
    every = feature_uses(table, tiers, names)
    few = tuple(use for use in every if use.name in FEATURES and _is_basic(FEATURES[use.name]))
    return [every, few] if not names and 2 < len(few) < len(every) else [every]


def _is_basic(feature: FeatureSpec) -> bool:
    """What the merge averages and how, whatever the alignment, and what there is to lose."""
    asked = bool(feature.by_alignment) or feature.of_recipe or feature.name == "k"
    return asked or feature.name.endswith("_headroom")


def tier_sets_of(table: EvidenceTable) -> dict[str, tuple[str, ...]]:
    """The sets of tiers for which a table holds features; "table" for somebody else's."""
    present = set(table.tiers.values())
    if "table" in present and not present & {*FORECASTING, ORACLE}:
        return {"table": ("table",)}
    found = {
        name: tiers
        for name, tiers in TIER_SETS.items()
        if tiers[-1] in present and any(f in table.features for f in _used(tiers[-1]))
    }
    stated = stated_in(table)
    found |= {
        name: tiers for name, tiers in STATED_SETS.items()
        if "+".join(measured_of(tiers)) in found and {*tiers} & {*STATED} <= stated
    }  # fmt: skip
    return found or {"table": tuple(sorted(present))}


def measured_of(tiers: Sequence[str]) -> tuple[str, ...]:
    """The tiers of a set without what is stated."""
    return tuple(tier for tier in tiers if tier not in STATED)


def stated_in(table: EvidenceTable) -> set[str]:
    """What the parents of all rows state: languages, and with them the history of training."""
    found: set[str] = set()
    none = np.full(len(table), np.nan)
    for kind in STATED:
        if not all(np.isfinite(table.features.get(f, none)).all() for f in _used("T0", kind)):
            break
        found.add(kind)
    return found


def at_hand(table: EvidenceTable) -> set[str]:
    """Tiers that a table has features of, and what its parents state."""
    return {*(table.tiers[name] for name in table.features), *stated_in(table)}


def forecasting_sets(table: EvidenceTable) -> dict[str, tuple[str, ...]]:
    """The sets of tiers that a forecast may rest on: all but those that look at a merge."""
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


def with_derived(table: EvidenceTable) -> EvidenceTable:
    """Add what alignment and parameters tell, where the table has what it is read from."""
    return _with_recipe(_with_as_merged(table))


def _with_recipe(table: EvidenceTable) -> EvidenceTable:
    if "T0" not in table.tiers.values():  # features of somebody else's, which are of no tier
        return table
    told = zip(table["method"], table["parameters"], map(len, table.parents), strict=True)
    columns = np.array([stated_features(*row) for row in told], dtype=np.float64)
    if np.isnan(columns).all():  # nobody stated any
        return table
    values = dict(zip(NAMES, columns.reshape(-1, len(NAMES)).T, strict=True))
    return table.with_features(values, dict.fromkeys(NAMES, "T0"))


def _with_as_merged(table: EvidenceTable) -> EvidenceTable:
    alignment = table["alignment"]
    present = set(alignment)
    more: dict[str, np.ndarray] = {}
    features: list[FeatureSpec] = [spec for spec in specs() if spec.by_alignment]
    for feature in features:
        needed = {feature.by_alignment[a] for a in present if a in feature.by_alignment}
        known = needed & set(table.features)
        if not known or (known < needed and not feature.partly):
            continue
        values = np.full(len(table), np.nan)
        for name, raw in feature.by_alignment.items():
            if name in present and raw in known:
                values = np.where(alignment == name, table[raw], values)
        more[feature.name] = values
    return table.with_features(more, {name: FEATURES[name].tier for name in more})
