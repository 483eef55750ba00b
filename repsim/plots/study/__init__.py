"""Figures of an atlas: what a study found about merging.

Each kind has `prepare_*` (numbers and words), `draw_*` and `plot_*`, as in `repsim.plots`. Those
that are matrices or rows of panels fill the width of a page; the others take a `size`.

Example:
    >>> from repsim.plots.study import prepare_forks
    >>> from repsim.testing.atlases import planted_atlas
    >>> len(prepare_forks(planted_atlas()).pairs)
    6
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repsim.plots.study.alignment import plot_alignment, prepare_alignment
    from repsim.plots.study.collapse import (
        plot_combinations,
        plot_methods,
        prepare_combinations,
        prepare_methods,
    )
    from repsim.plots.study.controls import plot_controls, prepare_controls
    from repsim.plots.study.distance import plot_distance, prepare_distance
    from repsim.plots.study.forks import plot_forks, prepare_forks
    from repsim.plots.study.paths import plot_paths, prepare_paths
    from repsim.plots.study.similarity import (
        plot_depth,
        plot_plane,
        prepare_depth,
        prepare_plane,
    )
    from repsim.plots.study.strength import plot_strength, prepare_strength

#: Kind of figure -> the module that makes it, in the order of a report.
KINDS: dict[str, str] = {
    "strength": "strength",
    "methods": "collapse",
    "combinations": "collapse",
    "forks": "forks",
    "depth": "similarity",
    "plane": "similarity",
    "alignment": "alignment",
    "paths": "paths",
    "distance": "distance",
    "controls": "controls",
}

__all__ = [
    "KINDS",
    "plot_alignment", "plot_combinations", "plot_controls", "plot_depth", "plot_distance",
    "plot_forks", "plot_methods", "plot_paths", "plot_plane", "plot_strength",
    "prepare_alignment", "prepare_combinations", "prepare_controls", "prepare_depth",
    "prepare_distance", "prepare_forks", "prepare_methods", "prepare_paths", "prepare_plane",
    "prepare_strength",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    verb, _, kind = name.partition("_")
    if verb in ("plot", "prepare") and kind in KINDS:
        return getattr(importlib.import_module(f"repsim.plots.study.{KINDS[kind]}"), name)
    raise AttributeError(f"module 'repsim.plots.study' has no attribute '{name}'")
