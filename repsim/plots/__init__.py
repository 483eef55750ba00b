"""Figures of tables: each kind is one spec with its numbers (`info`) and its drawing (`draw`).

`FIGURES[name](table, **options)` draws, `FIGURES[name].info(table, **options)` gives the numbers
and a `caption()`; `table.plot` has those that a similarity table draws of itself.

Example:
    >>> from repsim.plots import FIGURES
    >>> from repsim.testing.tables import synthetic_table
    >>> table = synthetic_table(languages=("eng_Latn",))
    >>> FIGURES["heatmap"].info(table, measure="cka").panels[0].values.shape
    (13, 7)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repsim.plots.appearance import style
    from repsim.plots.registry import FIGURES, TablePlots
    from repsim.plots.save import save_figure
    from repsim.plots.spec import Figure, Info

_PUBLIC = {
    "FIGURES": "registry",
    "Figure": "spec",
    "Info": "spec",
    "TablePlots": "registry",
    "save_figure": "save",
    "style": "appearance",
}

__all__ = ["FIGURES", "Figure", "Info", "TablePlots", "save_figure", "style"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"repsim.plots.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'repsim.plots' has no attribute '{name}'")
