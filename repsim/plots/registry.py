"""Every figure by name, and those that a similarity table draws of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from repsim.core.errors import unknown_name
from repsim.core.registry import Registry
from repsim.plots.spec import Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

FIGURES: Registry[Figure] = Registry(
    "figure", entry_point_group="repsim.figures", see="repsim plot --help"
)
FIGURES.add("layers", "repsim.plots.layers:LAYERS")
FIGURES.add("heatmap", "repsim.plots.heatmap:HEATMAP")
FIGURES.add("languages", "repsim.plots.languages:LANGUAGES")
FIGURES.add("space", "repsim.plots.space:SPACE")
FIGURES.add("ladder", "repsim.plots.ladder:LADDER")
FIGURES.add("barrier", "repsim.plots.barrier:BARRIER")
FIGURES.add("retention", "repsim.plots.retention:RETENTION")
FIGURES.add("forecast", "repsim.plots.forecast:FORECAST")
FIGURES.add("forecast_matrix", "repsim.plots.forecast:FORECAST_MATRIX")
FIGURES.add("training", "repsim.plots.training:TRAINING")


class TablePlots:
    """The figures of one similarity table, one method each: `table.plot.heatmap(measure="cka")`.

    Args:
        table: The similarities.

    Example:
        >>> from repsim.testing.tables import synthetic_table
        >>> plots = TablePlots(synthetic_table(languages=("eng_Latn",)))
        >>> len(plots.heatmap(measure="cka").axes)
        2
    """

    def __init__(self, table: Any) -> None:
        self._table = table

    def __getattr__(self, name: str) -> Callable[..., Drawing]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in dir(self):
            raise unknown_name("plot", name, dir(self), see="repsim plot --help")
        return FIGURES[name].of(self._table)

    def __dir__(self) -> list[str]:
        return [name for name in FIGURES if FIGURES[name].reads == "similarity"]
