"""Colours of similarity matrices: one scale for all panels, bright is always similar."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from repsim.plots.names import number
from repsim.plots.selection import MeasureFacts


class ColourScale(NamedTuple):
    """Values to colours; `extend` tells which ends the data pass, `note` says it in words."""

    cmap: str
    low: float
    high: float
    extend: str
    note: str

    @classmethod
    def of(
        cls, facts: MeasureFacts, values: np.ndarray, limits: tuple[float, float] | None = None
    ) -> ColourScale:
        """The scale of a measure: magma from 0 to 1; for a distance reversed, to its largest."""
        known = values[np.isfinite(values)]
        least, most = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        low, high = limits or (0.0, facts.high if facts.high is not None else max(most, 1.0))
        below, above = known < low - 1e-9, known > high + 1e-9
        ends = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}
        notes = [
            f"{int(beyond.sum())} of {known.size} cells {words})"
            for beyond, words in (
                (below, f"below {low:g} (least {number(least, 3)}"),
                (above, f"above {high:g} (most {number(most, 3)}"),
            )
            if beyond.any()
        ]
        cmap = "magma" if facts.is_similarity else "magma_r"
        extend = ends[bool(below.any()), bool(above.any())]
        return cls(cmap, float(low), float(high), extend, " · ".join(notes))
