"""Unit `features`: everything that is measured of a group of parents before it is merged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.errors import IncompatibleModelsError

if TYPE_CHECKING:
    from repsim.mergeability.features import TierResult
    from repsim.studies.engine.workspace import Workspace


def features_unit(
    spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace
) -> dict[str, Any]:
    """Measure one group in the tiers that are asked for."""
    folders = [workspace.fetch(f"models/{name}") for name in spec["parents"]]
    cache = workspace.folder("activations")
    rows, seconds, notes = [], {}, []
    for tier in spec["tiers"]:
        workspace.log(f"{tier} of {' + '.join(spec['parents'])}")
        try:
            found = _measured(tier, spec, folders, cache)
        except IncompatibleModelsError as error:
            notes.append(f"{tier}: {error}")
            continue
        notes += [f"{tier}: {note}" for note in found.notes]
        seconds[tier] = found.seconds
        rows += [
            {"language": value.language, "tier": tier, "feature": value.feature,
             "value": value.value}
            for value in found.values
            if math.isfinite(value.value)
        ]  # fmt: skip
    return {"parents": list(spec["parents"]), "rows": rows, "seconds": seconds, "notes": notes}


def _measured(
    tier: str, spec: Mapping[str, Any], folders: list[Path], cache: Path
) -> TierResult:  # fmt: skip
    from repsim.mergeability import features

    languages, text = list(spec["languages"]), spec["text"]
    if tier == "T0":
        return features.metadata_features(folders)
    if tier == "T1":
        return features.weight_features(folders)
    if tier == "T2":
        return features.activation_features(
            folders, corpus=spec["corpus"], languages=languages, limit=spec["sentences"],
            text=text, cache=cache,
        )  # fmt: skip
    if tier == "T3":
        return features.gradient_features(folders, corpus=text, languages=languages)
    return features.oracle_features(
        folders, corpus=spec["corpus"], languages=languages, text=text
    )  # fmt: skip
