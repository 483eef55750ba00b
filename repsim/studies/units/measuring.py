"""Unit `features`: everything that is measured of a group of parents before it is merged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repsim.core.errors import IncompatibleModelsError

if TYPE_CHECKING:
    from repsim.studies.engine.workspace import Workspace


def features_unit(
    spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace
) -> dict[str, Any]:
    """Measure one group in the tiers that are asked for."""
    from repsim.mergeability.features import TIERS, How, OpenedParents

    folders = [workspace.fetch(f"models/{name}") for name in spec["parents"]]
    rows, measured, notes = [], [], []
    how = How(
        tuple(spec["languages"]), corpus=spec["corpus"], limit=spec["sentences"],
        text=spec["text"], cache=workspace.folder("activations"),
    )  # fmt: skip
    with OpenedParents(folders) as parents:
        for tier in spec["tiers"]:
            workspace.log(f"{tier} of {' + '.join(spec['parents'])}")
            try:
                found = TIERS[tier].measure(parents, how, None)
            except IncompatibleModelsError as error:
                notes.append(f"{tier}: {error}")
                continue
            notes += [f"{tier}: {note}" for note in found.notes]
            workspace.took(tier, found.seconds)
            measured.append(tier)
            rows += [
                {"language": value.language, "tier": tier, "feature": value.feature,
                 "value": value.value}
                for value in found.values
                if math.isfinite(value.value)
            ]  # fmt: skip
    return {"parents": list(spec["parents"]), "rows": rows, "tiers": measured, "notes": notes}
