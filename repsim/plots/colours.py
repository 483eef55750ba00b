"""Colours of similarity matrices: one scale for all panels, bright is always similar."""

from __future__ import annotations

import dataclasses

import numpy as np

from repsim.plots.names import number
from repsim.plots.selection import MeasureFacts


@dataclasses.dataclass(frozen=True)
class ColourScale:
    """Values to colours.

    Attributes:
        cmap: Name of the Matplotlib colour map.
        low, high: Values at its ends.
        extend: Which ends the data pass: "neither", "min", "max" or "both".
        note: Says so in words; empty if they do not.
    """

    cmap: str
    low: float
    high: float
    extend: str
    note: str

    @classmethod
    def of(
        cls,
        facts: MeasureFacts,
        values: np.ndarray,
        limits: tuple[float, float] | None = None,
    ) -> ColourScale:
        """The scale of a measure: magma from 0 to 1; for a distance reversed, to its largest.

        Args:
            facts: The measure.
            values: All values that will be shown; NaN is ignored.
            limits: Other ends.

        Example:
            >>> facts = MeasureFacts("cka", "CKA", "similarity", None, 1.0, 1.0, True, "L2")
            >>> ColourScale.of(facts, np.array([-0.02, 0.5])).extend
            'min'
        """
        known = values[np.isfinite(values)]
        least, most = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        low, high = limits or (0.0, facts.high if facts.high is not None else max(most, 1.0))
        below, above = least < low - 1e-9, most > high + 1e-9
        extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
        notes = []
        if below:
            count = int((known < low - 1e-9).sum())
            notes.append(f"{count} of {known.size} cells below {low:g} (least {number(least, 3)})")
        if above:
            count = int((known > high + 1e-9).sum())
            notes.append(f"{count} of {known.size} cells above {high:g} (most {number(most, 3)})")
        cmap = "magma" if facts.is_similarity else "magma_r"
        return cls(cmap, float(low), float(high), extend, " · ".join(notes))
