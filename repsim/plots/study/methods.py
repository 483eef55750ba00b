"""Where merges collapse, by method, origin and number of parents."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from repsim.core.atlas import COLLAPSE, Atlas
from repsim.core.formatting import number
from repsim.plots.appearance import INK, Size
from repsim.plots.colours import ColourScale
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.matrix import coloured, draw_matrix, in_words, ink_on
from repsim.plots.names import wrapped
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.study.axes import RETENTION_SCALE, retention_bar, retention_place
from repsim.plots.study.outcomes import LARGE, SETTINGS, chosen, outcomes_of, recipe_label

#: Names of settings short enough for the head of a column.
HEADS = {
    "independent": "independent\nweights",
    "same-init": "same initial\nweights",
    "early-forks": "forks,\n≤ 10 %",
    "late-forks": "forks,\n> 10 %",
    "doses": "fine-\ntuned",
}


def _caption(info: Numbers) -> str:
    dead = [
        f"{SETTINGS[setting]}, k = {k}"
        for place, (setting, k) in enumerate(info.columns)
        if np.nanmin(info.collapsed[:, place]) == 1
    ]
    words = f"Every merge collapses in: {'; '.join(dead)}." if dead else ""
    return (
        "Retention of the worst language, median over the merges of a cell, by method "
        "(rows; 'permuted' and 'rotated': parents aligned before) and by the origin and number "
        f"k of the parents. Small: share of merges below {COLLAPSE:g}. " + words
    )


def methods_info(atlas: Atlas) -> Numbers:
    """Collapse by method, setting and number of parents."""
    found = chosen(outcomes_of(atlas), lambda o: o.setting in LARGE, "merges of several languages")
    recipes = list(dict.fromkeys(o.recipe for o in found))
    recipes.sort(key=lambda recipe: (recipe[1] != "none", recipe[1] != "permutation"))
    columns = sorted({(o.setting, o.k) for o in found}, key=lambda c: (LARGE.index(c[0]), c[1]))
    shape = (len(recipes), len(columns))
    medians, collapsed = np.full(shape, np.nan), np.full(shape, np.nan)
    counts = np.zeros(shape, dtype=int)
    for cell in itertools.product(*map(range, shape)):
        wanted = recipes[cell[0]], columns[cell[1]]
        values = np.array([o.worst for o in found if (o.recipe, (o.setting, o.k)) == wanted])
        if len(values):
            medians[cell], collapsed[cell] = np.median(values), np.mean(values < COLLAPSE)
            counts[cell] = len(values)
    return Numbers(_caption,
        recipes=tuple(recipe_label(*recipe) for recipe in recipes),
        columns=tuple(columns),
        medians=medians,
        collapsed=collapsed,
        counts=counts,
        title="Collapse by method and number of parents",
        note=(f"{counts.sum()} merges", "large: median retention of the worst language",
              "small: share that collapses"),
    )  # fmt: skip


def draw_methods(
    info: Numbers, *, ax: Where = None, size: Size = "wide", cmap: str | None = None
) -> Drawing:
    """A row per recipe, a column per origin and number of parents."""
    rows, columns = info.medians.shape
    (frame,) = axes = fig.frames(info, ax, 1, 1, size, 0.95 + 0.33 * rows)
    scale = coloured(RETENTION_SCALE, cmap)
    heads = [f"{SETTINGS[setting]}, k = {k}" for setting, k in info.columns]
    said = in_words(info.medians, info.recipes, heads)
    image = draw_matrix(frame, retention_place(info.medians), scale, said)
    frame.set_aspect("auto")
    _write_cells(frame, info, scale)
    frame.set_yticks(range(rows), [wrapped(name, 24) for name in info.recipes])
    frame.set_xticks(range(columns), [f"k = {k}" for _, k in info.columns])
    frame.xaxis.tick_top()
    _write_heads(frame, info)
    naive = sum("," not in name for name in info.recipes)
    if 0 < naive < rows:
        frame.axhline(naive - 0.5, color="white", linewidth=3)
    retention_bar(image, axes)
    return fig.finish(axes)


def _write_cells(ax: Axes, info: Numbers, scale: ColourScale) -> None:
    ink = ink_on(retention_place(info.medians), scale)
    for i, j in itertools.product(*map(range, info.medians.shape)):
        value = info.medians[i, j]
        if np.isfinite(value):
            options: dict[str, Any] = {"ha": "center", "color": ink[i, j]}
            # What lies far below zero needs no decimals.
            text = number(value, 2 if value > -1 else 1 if value > -10 else 0)
            ax.text(j, i - 0.02, text, va="bottom", fontsize=8, **options)
            share = f"{100 * info.collapsed[i, j]:.0f} %"
            ax.text(j, i + 0.04, share, va="top", fontsize=5.8, **options)


def _write_heads(ax: Axes, info: Numbers) -> None:
    """Name each setting once, over its columns."""
    from matplotlib.transforms import blended_transform_factory

    at_top = blended_transform_factory(ax.transData, ax.transAxes)
    for setting, group in itertools.groupby(enumerate(info.columns), key=lambda item: item[1][0]):
        places = [place for place, _ in group]
        ax.annotate(
            HEADS[setting], ((places[0] + places[-1]) / 2, 1.0), xycoords=at_top, xytext=(0, 15),
            textcoords="offset points", ha="center", va="bottom", fontsize=7.5, fontweight="bold",
            color=INK, annotation_clip=False,
        )  # fmt: skip
        if places[-1] < len(info.columns) - 1:
            ax.axvline(places[-1] + 0.5, color="white", linewidth=4)


METHODS = Figure("atlas_methods", "atlas", methods_info, draw_methods)
