"""Unit `path`: loss along the straight path between two parents, as they are and aligned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.studies.units.coordinates import NAIVE, in_coordinates
from repsim.studies.units.scoring import prepared, selected

if TYPE_CHECKING:
    from repsim.evaluation import BitsPerByte
    from repsim.studies.engine.workspace import Workspace


def path_unit(
    spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace
) -> dict[str, Any]:
    """Score the models on the path between two parents."""
    from repsim.evaluation.held_out import best_device
    from repsim.evaluation.path import path_scores
    from repsim.merging.align import build_model
    from repsim.models.causal import load_causal_lm

    device = best_device()
    models = [load_causal_lm(workspace.fetch(f"models/{name}")) for name in spec["parents"]]
    everything = prepared({**spec, "languages": spec["family_languages"]}, models[0])
    ready = selected(everything, spec["languages"])
    positions = np.linspace(0.0, 1.0, spec["points"])
    rows: list[dict[str, Any]] = []
    for alignment, (start, end), config in in_coordinates(models, (NAIVE, *spec["alignments"])):
        model = build_model(config, start).to(device)
        for language, bits in _curves(path_scores(model, start, end, ready, positions)).items():
            above = bits - ((1 - positions) * bits[0] + positions * bits[-1])
            rows += [
                {"alignment": alignment, "language": language, "t": float(t),
                 "bits_per_byte": float(value), "above_chord": float(height)}
                for t, value, height in zip(positions, bits, above, strict=True)
            ]  # fmt: skip
            workspace.log(f"{alignment} {language}: barrier {above.max():.2f}")
    return {"parents": list(spec["parents"]), "rows": rows}


def _curves(scores: list[dict[str, BitsPerByte]]) -> dict[str, np.ndarray]:
    """Language -> `[points]` bits per byte."""
    return {
        language: np.array([float(point[language]) for point in scores]) for language in scores[0]
    }
