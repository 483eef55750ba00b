"""A figure that carries its style with it; the one module here that imports matplotlib at once."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from repsim.plots.appearance import style


class StyledFigure(Figure):
    """A figure that is always rendered in the repsim style, and shows itself in notebooks.

    No pyplot: a figure belongs to whoever holds it, and drawing one changes no global state.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        FigureCanvasAgg(self)

    def draw(self, renderer: Any) -> None:
        """Render in the repsim style, whatever the caller's settings are."""
        with style():
            super().draw(renderer)

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        """Save in the repsim style (`repsim.plots.save_figure` is byte-stable and atomic)."""
        with style():
            super().savefig(fname, **kwargs)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=150)
        return buffer.getvalue()
