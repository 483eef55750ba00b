"""Features of the parents as they are when they are averaged: after the alignment, if there is one.

A merge after permutation averages models whose units were re-ordered; what counts is the distance
that remains, one rung up the ladder. Which raw feature that is follows from the alignment, so that
one law can hold for all three.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from repsim.mergeability.evidence import EvidenceTable


@dataclasses.dataclass(frozen=True)
class AsMerged:
    """A feature that is read on the rung that the alignment leaves.

    Attributes:
        name: Name of the feature that results.
        tier: Tier of what it is read from.
        direction: +1 if larger merges better, -1 if worse.
        label: Name for people.
        by_alignment: Alignment -> raw feature.
        partly: Whether it may be there for some alignments only; it has no value for the others.
    """

    name: str
    tier: str
    direction: int
    label: str
    by_alignment: dict[str, str]
    partly: bool = False


def _ladder(section: str) -> AsMerged:
    return AsMerged(
        f"similarity_as_merged_{section}", "T2", +1, f"similarity as merged, {section}",
        {"none": f"unit_correlation_{section}", "permutation": f"permutation_{section}",
         "orthogonal": f"procrustes_{section}"},
    )  # fmt: skip


def _oracle(what: str) -> AsMerged:
    return AsMerged(
        f"oracle_{what}_as_merged", "oracle", +1, f"trial of the average as merged, {what}",
        {"none": f"oracle_{what}", "permutation": f"oracle_{what}_permutation",
         "orthogonal": f"oracle_{what}_orthogonal"},
        partly=True,  # a study tries the average of the parents as they are, and may try no other
    )  # fmt: skip


#: Every such feature.
AS_MERGED = (
    AsMerged(
        "distance_as_merged", "T1", -1, "relative distance as merged",
        {"none": "weight_distance", "permutation": "quotient_distance_permutation",
         "orthogonal": "quotient_distance_orthogonal"},
    ),
    AsMerged(
        "distance_as_merged_worst", "T1", -1, "relative distance as merged, worst pair",
        {"none": "weight_distance_worst", "permutation": "quotient_distance_permutation_worst",
         "orthogonal": "quotient_distance_orthogonal_worst"},
    ),
    *(_ladder(section) for section in ("early", "middle", "late")),
    AsMerged(
        "hidden_as_merged_middle", "T2", +1, "similarity of hidden units as merged, middle",
        {"none": "hidden_unit_correlation_middle", "permutation": "hidden_cka_middle",
         "orthogonal": "hidden_cka_middle"},
    ),
    _oracle("retention"), _oracle("worst_retention"),
)  # fmt: skip
BY_NAME = {feature.name: feature for feature in AS_MERGED}


def with_as_merged(table: EvidenceTable) -> EvidenceTable:
    """Add those features for which the table has what they are read from.

    Args:
        table: Evidence.

    Returns:
        The same rows; a feature is there if the table has its raw feature for every alignment
        among its rows (for some, if that is enough for it), and its values follow the alignment of
        each row.

    Example:
        >>> rows = [{"merge": a, "alignment": a} for a in ("none", "permutation")]
        >>> raw = {"weight_distance": [1.4, 1.4], "quotient_distance_permutation": [0.2, 0.2]}
        >>> table = EvidenceTable.from_rows(rows, raw, dict.fromkeys(raw, "T1"))
        >>> with_as_merged(table)["distance_as_merged"].tolist()
        [1.4, 0.2]
    """
    alignment = table["alignment"]
    present = set(alignment)
    more: dict[str, np.ndarray] = {}
    for feature in AS_MERGED:
        needed = {feature.by_alignment[a] for a in present if a in feature.by_alignment}
        known = needed & set(table.features)
        if not known or (known < needed and not feature.partly):
            continue
        values = np.full(len(table), np.nan)
        for name, raw in feature.by_alignment.items():
            if name in present and raw in known:
                values = np.where(alignment == name, table[raw], values)
        more[feature.name] = values
    return table.with_features(more, {name: BY_NAME[name].tier for name in more})
