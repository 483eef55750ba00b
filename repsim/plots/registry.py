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
FIGURES.add("checkpoints", "repsim.plots.checkpoints:CHECKPOINTS")
FIGURES.add("languages", "repsim.plots.languages:LANGUAGES")
FIGURES.add("space", "repsim.plots.space:SPACE")
FIGURES.add("rdm", "repsim.plots.rdm:RDM")
FIGURES.add("ladder", "repsim.plots.ladder:LADDER")
FIGURES.add("measure_ranking", "repsim.plots.measure_ranking:MEASURE_RANKING")
FIGURES.add("barrier", "repsim.plots.barrier:BARRIER")
FIGURES.add("retention", "repsim.plots.retention:RETENTION")
FIGURES.add("diagnosis", "repsim.plots.diagnosis:DIAGNOSIS")
FIGURES.add("forecast", "repsim.plots.forecast:FORECAST")
FIGURES.add("forecast_matrix", "repsim.plots.forecast:FORECAST_MATRIX")
FIGURES.add("training", "repsim.plots.training:TRAINING")
FIGURES.add("atlas_strength", "repsim.plots.study.strength:STRENGTH")
FIGURES.add("atlas_methods", "repsim.plots.study.methods:METHODS")
FIGURES.add("atlas_combinations", "repsim.plots.study.combinations:COMBINATIONS")
FIGURES.add("atlas_forks", "repsim.plots.study.forks:FORKS")
FIGURES.add("atlas_depth", "repsim.plots.study.depth:DEPTH")
FIGURES.add("atlas_plane", "repsim.plots.study.plane:PLANE")
FIGURES.add("atlas_alignment", "repsim.plots.study.alignment:ALIGNMENT")
FIGURES.add("atlas_paths", "repsim.plots.study.paths:PATH_FIGURE")
FIGURES.add("atlas_distance", "repsim.plots.study.distance:DISTANCE")
FIGURES.add("atlas_controls", "repsim.plots.study.controls:CONTROLS")
FIGURES.add("published_pairs", "repsim.plots.study.published:PUBLISHED")
FIGURES.add("validation_forecasts", "repsim.plots.validation.forecasts:FORECASTS")
FIGURES.add("validation_reliability", "repsim.plots.validation.reliability:RELIABILITY")
FIGURES.add("validation_intervals", "repsim.plots.validation.intervals:INTERVALS_FIGURE")
FIGURES.add("validation_lift", "repsim.plots.validation.lift:LIFT")
FIGURES.add("validation_candidates", "repsim.plots.validation.candidates:CANDIDATES")
FIGURES.add("validation_controls", "repsim.plots.validation.controls:CONTROLS")
FIGURES.add("validation_hypotheses", "repsim.plots.validation.hypotheses:HYPOTHESES")
FIGURES.add("outcome_scores", "repsim.plots.outcome_scores:SCORES")


class TablePlots:
    """The figures of one table, one method each: `table.plot.heatmap(measure="cka")`.

    Args:
        table: Similarities, an evaluation, paths with their barrier, or forecasts.

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
        return [name for name in FIGURES if FIGURES[name].reads == self._table.STEM]
