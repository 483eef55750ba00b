"""Lineage: which models are one as far as "never seen in training" goes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from repsim.core.atlas import Atlas, split_parents

_HASH = re.compile("[0-9a-f]{64}")


def root_of(model: str, lineage: Mapping[str, str]) -> str:
    """Follow a model to the one that it was made from."""
    seen = {model}
    while model in lineage and lineage[model] not in seen:
        model = lineage[model]
        seen.add(model)
    return model


def origins_of(atlases: Mapping[str, Atlas]) -> dict[str, str]:
    """Model -> the run (perhaps a fork) or the weights that it started from, over all atlases."""
    found = {}
    for before, atlas in atlases.items():
        for row in atlas.models.rows():
            if start := row["forked_from"]:
                # A base that no run of the study made is named by the hash of its weights.
                run = f"{row['model'].rpartition('/')[0]}/{start}".removeprefix("/")
                found[before + row["model"]] = start if _HASH.fullmatch(start) else before + run
    return found


def lineage_of(atlases: Mapping[str, Atlas]) -> dict[str, str]:
    """Model -> the one that stands for it, by controls and by equal weights over all atlases."""
    lineage: dict[str, str] = {}
    for before, atlas in atlases.items():
        for row in atlas.merges.rows():
            if row["control"]:
                first, *others = (before + name for name in split_parents(row["parents"]))
                lineage |= {name: first for name in others if name != first}
    holder: dict[str, str] = {}
    for before, atlas in atlases.items():
        for row in atlas.models.rows():
            name, weights = before + row["model"], row["weights_hash"]
            first = holder.setdefault(weights, name) if weights else name
            if first != name and root_of(name, lineage) != root_of(first, lineage):
                lineage[root_of(name, lineage)] = root_of(first, lineage)
    return lineage
