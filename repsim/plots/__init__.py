"""Figures of similarity tables, each kind in three steps.

`prepare_*` makes the numbers and words (no Matplotlib), `draw_*` draws them, `plot_*` does both.
What is prepared has a `caption()`; what is drawn is a `matplotlib.figure.Figure`.

Example:
    >>> from repsim.plots import prepare_heatmap
    >>> from repsim.testing.tables import synthetic_table
    >>> prepare_heatmap(synthetic_table(languages=("eng_Latn",))).panels[0].values.shape
    (7, 13)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repsim.plots.appearance import style
    from repsim.plots.drawing.ladder import draw_ladder
    from repsim.plots.drawing.languages import draw_languages
    from repsim.plots.drawing.layers import draw_layers
    from repsim.plots.drawing.space import draw_space
    from repsim.plots.heatmap import plot_heatmap, prepare_heatmap
    from repsim.plots.ladder import plot_ladder, prepare_ladder
    from repsim.plots.languages import plot_languages, prepare_languages
    from repsim.plots.layers import plot_layers, prepare_layers
    from repsim.plots.save import save_figure
    from repsim.plots.space import plot_space, prepare_space

_KINDS = ("layers", "heatmap", "languages", "space", "ladder")
_PUBLIC = {
    **{f"{verb}_{kind}": kind for kind in _KINDS for verb in ("prepare", "plot")},
    **{f"draw_{kind}": f"drawing.{kind}" for kind in _KINDS},
    "save_figure": "save",
    "style": "appearance",
}

__all__ = [
    "draw_heatmap", "draw_ladder", "draw_languages", "draw_layers", "draw_space",
    "plot_heatmap", "plot_ladder", "plot_languages", "plot_layers", "plot_space",
    "prepare_heatmap", "prepare_ladder", "prepare_languages", "prepare_layers", "prepare_space",
    "save_figure", "style",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"repsim.plots.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'repsim.plots' has no attribute '{name}'")
