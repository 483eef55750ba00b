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

from repsim._lazy import lazily

#: Public name -> where it lives.
_PUBLIC = {
    "FIGURES": "repsim.plots.registry",
    "Figure": "repsim.plots.spec",
    "Info": "repsim.plots.spec",
    "TablePlots": "repsim.plots.registry",
    "save_figure": "repsim.plots.save",
    "style": "repsim.plots.appearance",
}

__getattr__, __dir__, __all__ = lazily(__name__, _PUBLIC)
