"""A figure that carries its style with it; the one module here that imports matplotlib at once."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from repsim.plots.appearance import Canvas, canvas, drawn_on, style


class StyledFigure(Figure):
    """A figure rendered in its own theme, that shows itself in notebooks; no pyplot."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        FigureCanvasAgg(self)
        self._canvas = Canvas(theme=canvas().theme)

    def draw(self, renderer: Any) -> None:
        """Render in the theme that it was drawn in, whatever the caller's settings are."""
        with drawn_on(self._canvas), style():
            super().draw(renderer)

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        """Save in its theme (`repsim.plots.save_figure` is byte-stable and atomic)."""
        with drawn_on(self._canvas), style():
            super().savefig(fname, **kwargs)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=150)
        return buffer.getvalue()
