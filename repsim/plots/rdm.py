"""Dissimilarity matrices of sentences or documents: what RSA compares, one model beside another."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.table import Table
from repsim.plots.appearance import Size, width_of
from repsim.plots.colours import ColourScale
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing import matrix
from repsim.plots.names import number, short_codes
from repsim.plots.selection import MeasureFacts
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.stats.ranks import spearman

MAX_PANELS = 6


def _caption(info: Numbers) -> str:
    said = [f"{a} and {b} {number(rho)}" for a, b, rho in info.agreement]
    agree = f" Spearman correlation of the pairs (RSA): {'; '.join(said)}." if said else ""
    return (
        f"{info.facts.label} of every item with every other. {'; '.join(info.note)}. Bright "
        "blocks are items that the model takes for alike; lines part the languages, and a "
        f"bright line beside the diagonal of two languages is translations that meet.{agree}"
    )


def rdm_info(
    table: Table, *, models: list[str] | None = None, limits: tuple[float, float] | None = None
) -> Numbers:
    """Dissimilarity matrices, one panel per model, items by language and in their order."""
    names = models or [str(name) for name in table.unique("model")]
    if not names or len(names) > MAX_PANELS:
        raise UsageError(f"{len(names)} models; a figure shows 1 to {MAX_PANELS} matrices")
    found = {name: list(table.where(model=name).rows()) for name in names}
    orders = {name: _items(rows) for name, rows in found.items()}
    items = orders[names[0]]
    for name in names:
        if len(items) < 3 or orders[name] != items:
            raise UsageError(
                f"'{name}' has {len(orders[name])} items, which are not those of '{names[0]}'",
                hint="read the same sentences with every model, three at least",
            )
    panels = tuple(_panel(name, rows, len(items)) for name, rows in found.items())
    codes = short_codes([language for language, _ in items])
    metric = next(iter(found.values()))[0]["metric"]
    facts = MeasureFacts(metric, f"{metric} distance", "distance", 0.0, None, 0.0, True, None)
    every = np.concatenate([panel.values.ravel() for panel in panels])
    scale = ColourScale.of(facts, every, limits or (0.0, float(np.nanmax(every)) or 1.0))
    groups = itertools.groupby(codes[language] for language, _ in items)
    upper = np.triu_indices(len(items), 1)
    agreement = tuple(
        (a.title, b.title, spearman(a.values[upper], b.values[upper]))
        for a, b in itertools.combinations(panels, 2)
    )
    several = len({language for language, _ in items}) > 1
    return Numbers(
        _caption,
        panels=panels,
        items=tuple(" ".join(filter(None, (codes[lang], item))) for lang, item in items),
        groups=tuple((code, len(list(those))) for code, those in groups),
        agreement=agreement,
        facts=facts,
        scale=scale,
        title="Dissimilarity of every pair",
        note=(f"{len(items)} items", *["by language"] * several, *filter(None, (scale.note,))),
    )


def _items(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Items in their order: the first of all pairs, then each that it is paired with."""
    first = rows[0]["language_a"] or "", rows[0]["item_a"]
    mine = [row for row in rows if (row["language_a"] or "", row["item_a"]) == first]
    return [first, *((row["language_b"] or "", row["item_b"]) for row in mine)]


def _panel(name: str, rows: list[dict[str, Any]], count: int) -> Numbers:
    values = [row["value"] for row in rows]
    if len(values) != count * (count - 1) // 2:
        raise UsageError(f"{len(values)} pairs of {count} items are not every pair once")
    made = np.full((count, count), np.nan)
    made[np.triu_indices(count, 1)] = values
    return Numbers(title=f"{name}, layer {rows[0]['layer']}", values=np.fmax(made, made.T))


def draw_rdm(
    info: Numbers, *, ax: Where = None, size: Size = "wide", cmap: str | None = None
) -> Drawing:
    """Matrices beside each other on one scale, languages parted by lines."""
    scale = matrix.coloured(info.scale, cmap)
    count = len(info.panels)
    columns = fig.columns_of(count, size, wide=2 if count in (2, 4) else 3)
    side = min((width_of(size) - 1.0) / columns - 0.35, 3.4)
    axes = fig.frames(info, ax, count, columns, size, -(-count // columns) * (side + 0.5))
    for frame, panel in zip(axes, info.panels, strict=True):
        said = matrix.in_words(panel.values, info.items, info.items)
        image = matrix.draw_matrix(frame, panel.values, scale, said)
        matrix.blank_diagonal(frame, len(info.items))
        _part(frame, info.groups)
        fig.title_panel(frame, panel.title, side)
    bar = matrix.add_colour_bar(image, axes, scale, info.facts, side)
    fig.keep_left(axes, columns * (side + 0.35) + 1.0)
    figure = fig.finish(axes)
    matrix.align_colour_bar(bar, axes)
    return figure


def _part(ax: Axes, groups: tuple[tuple[str, int], ...]) -> None:
    """Name each language at the middle of its items, and part it from the next."""
    ends = np.cumsum([0, *(count for _, count in groups)])
    middles = (ends[:-1] + ends[1:] - 1) / 2
    names = [name for name, _ in groups]
    ax.set_xticks(middles, names)
    ax.set_yticks(middles, names)
    for end in ends[1:-1]:
        ax.axhline(end - 0.5, color="white", linewidth=1.2, zorder=3)
        ax.axvline(end - 0.5, color="white", linewidth=1.2, zorder=3)


RDM = Figure("rdm", "dissimilarities", rdm_info, draw_rdm)
