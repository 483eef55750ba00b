"""Lineage: which models are one as far as "never seen in training" goes."""

from __future__ import annotations

from collections.abc import Mapping

from repsim.core.atlas import Atlas, split_parents


def root_of(model: str, lineage: Mapping[str, str]) -> str:
    """Follow a model to the one that it was made from."""
    seen = {model}
    while model in lineage and lineage[model] not in seen:
        model = lineage[model]
        seen.add(model)
    return model


def origins_of_atlas(atlas: Atlas) -> dict[str, str]:
    """Model -> the run that it was forked from, itself perhaps a fork."""
    return {
        row["model"]: f"{row['model'].rpartition('/')[0]}/{row['forked_from']}".removeprefix("/")
        for row in atlas.models.rows()
        if row["forked_from"]
    }


def lineage_of_atlas(atlas: Atlas) -> dict[str, str]:
    """Model -> the one that stands for it; models that stand for themselves are left out."""
    lineage: dict[str, str] = {}
    for row in atlas.merges.rows():
        if row["control"]:
            first, *others = split_parents(row["parents"])
            lineage |= {name: first for name in others if name != first}
    holder: dict[str, str] = {}
    for row in atlas.models.rows():
        name, weights = row["model"], row["weights_hash"]
        if not weights:
            continue
        first = holder.setdefault(weights, name)
        if first != name and root_of(name, lineage) != root_of(first, lineage):
            lineage[root_of(name, lineage)] = root_of(first, lineage)
    return lineage
