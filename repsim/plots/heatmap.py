"""Every layer against every layer: heatmaps of a pair of models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.similarity_table import COLUMNS, SimilarityTable
from repsim.plots import selection as sel
from repsim.plots.appearance import Size, width_of
from repsim.plots.colours import ColourScale
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing import matrix
from repsim.plots.names import listed, number, short_codes, shortened
from repsim.plots.selection import MeasureFacts, Pair, Selection
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where

MAX_PANELS = 30
#: More panels than this are cut to one pair of models, unless models are chosen.
MANY_PANELS = 12


def _caption(info: Numbers) -> str:
    best = []
    for panel in info.panels[:6]:
        pick = np.nanargmax if info.facts.is_similarity else np.nanargmin
        values = _others(panel.values) if panel.alone else panel.values
        if not np.isfinite(values).any():
            continue
        i, j = np.unravel_index(int(pick(values)), values.shape)
        name = f"{panel.title}: " if panel.title else ""
        best.append(f"{name}{_layers(panel, int(i), int(j))} ({number(float(panel.values[i, j]))})")
    first = info.panels[0]
    more = "Brighter" if len(info.panels) == 1 else "In all panels, brighter"
    return (
        f"{info.facts.label} of every layer of {first.label_a} (rows) with every layer of "
        f"{first.label_b} (columns). {'; '.join(info.note)}. {more} is more similar; a ring "
        f"marks the layer most similar to each row's. Most similar layers: {listed(best)}."
    )


def _layers(panel: Numbers, i: int, j: int) -> str:
    """Two layers, as they are called."""
    a = panel.names_a[i] if panel.names_a else panel.layers_a[i]
    return f"{a} and {panel.names_b[j] if panel.names_b else panel.layers_b[j]}"


def heatmap_info(
    table: SimilarityTable,
    *,
    measure: str | None = None,
    point: str = "resid",
    pairing: str | None = None,
    models: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    column: str = "value",
    limits: tuple[float, float] | None = None,
) -> Numbers:
    """Layer x layer matrices, one panel per pair of (model, language); rows are A, columns B."""
    if column not in COLUMNS or COLUMNS[column][0] != "float":
        raise UsageError(
            f"column '{column}' holds no number to colour",
            hint=f"one of {', '.join(n for n, (kind, _) in COLUMNS.items() if kind == 'float')}",
        )
    selection = sel.select(
        table, measure=measure, point=point, pairing=pairing, models=models, languages=languages,
        alone=True,
    )  # fmt: skip
    pairs = list(selection.pairs)
    several = len({pair.models for pair in pairs})
    cut = len(pairs) > MANY_PANELS and models is None and several > 1
    if cut:
        pairs = [pair for pair in pairs if pair.models == pairs[0].models]
    sel.limit_panels(len(pairs), MAX_PANELS, "choose some with languages=[...]")
    facts = selection.facts
    if column not in ("value", "partial", "null_q95", "null_mean", "ci_low", "ci_high"):
        facts = facts._replace(
            label=f"{facts.label}, {column}", direction="similarity", low=None, high=1.0
        )
    elif column != "value":
        facts = facts._replace(label=f"{facts.label}, {column.replace('_', ' ')}")
    one_models = len({pair.models for pair in pairs}) == 1
    one_language = len({pair.languages for pair in pairs}) == 1
    panels = tuple(
        _panel(selection, pair, facts, column, models=not one_models, language=not one_language)
        for pair in pairs
    )
    scale = ColourScale.of(facts, np.concatenate([p.values.ravel() for p in panels]), limits)
    return Numbers(
        _caption,
        panels=panels,
        facts=facts,
        scale=scale,
        title=_title(selection, pairs),
        note=(*[f"first of {several} pairs of models"] * cut, *_note(selection, panels, scale)),
    )


def _panel(
    selection: Selection,
    pair: Pair,
    facts: MeasureFacts,
    column: str,
    *,
    models: bool,
    language: bool,
) -> Numbers:
    rows = selection.pairs[pair]
    layers_a, i = np.unique([row["layer_a"] for row in rows], return_inverse=True)
    layers_b, j = np.unique([row["layer_b"] for row in rows], return_inverse=True)

    def matrix(name: str) -> np.ndarray:
        grid = np.full((len(layers_a), len(layers_b)), np.nan)
        grid[i, j] = [np.nan if row[name] is None else row[name] for row in rows]
        return grid

    values, value, null = matrix(column), matrix("value"), matrix("null_q95")
    similar = selection.facts.is_similarity
    with np.errstate(invalid="ignore"):
        at_null = value <= null if similar else value >= null
    sign = 1.0 if facts.is_similarity else -1.0
    candidates = _others(values) if pair.is_self else values
    ranked = np.where(np.isfinite(candidates), sign * candidates, -np.inf)
    best = np.where(np.isfinite(candidates).any(axis=1), ranked.argmax(axis=1), -1)
    codes = short_codes(selection.languages())
    spoken = _language_name(pair, codes)
    named = " – ".join(dict.fromkeys(pair.models))
    same_text, same_model = pair.language_a == pair.language_b, pair.model_a == pair.model_b

    def side(model: str, code: str) -> str:
        return model if same_text else code if same_model and not models else f"{model} ({code})"

    label_a = side(pair.model_a, codes[pair.language_a])
    label_b = side(pair.model_b, codes[pair.language_b])
    return Numbers(
        title=spoken if language else named if models else "",
        label_a=label_a,
        label_b=label_b,
        alone=label_a == label_b,
        layers_a=tuple(layers_a.tolist()),
        layers_b=tuple(layers_b.tolist()),
        values=values,
        best=best,
        at_null=at_null,
        names_a=_layer_names(selection, pair.model_a, layers_a),
        names_b=_layer_names(selection, pair.model_b, layers_b),
    )


def _others(values: np.ndarray) -> np.ndarray:
    """A matrix of a model with itself without what is equal by definition."""
    return np.where(np.eye(len(values), dtype=bool), np.nan, values)


def _layer_names(selection: Selection, model: str, layers: np.ndarray) -> tuple[str, ...]:
    """What layers are called: by the user, or the embedding by its name; empty if by numbers."""
    named = selection.info.get("layer_names", {}).get(model)
    if named:
        return tuple(str(named[layer]) for layer in layers)
    if selection.point not in ("resid", "embed"):
        return ()
    return tuple(str(layer) if layer else "emb" for layer in layers)


def _language_name(pair: Pair, codes: dict[str, str]) -> str:
    a, b = codes[pair.language_a], codes[pair.language_b]
    return a if a == b else f"{a} – {b}"


def _title(selection: Selection, pairs: Sequence[Pair]) -> str:
    if len({pair.models for pair in pairs}) > 1:
        subject = "Every layer against every layer"
    elif pairs[0].is_self:
        subject = f"Layers of {shortened(pairs[0].model_a, 36)}"
    elif pairs[0].model_a == pairs[0].model_b:
        subject = f"Layers of {shortened(pairs[0].model_a, 36)} across languages"
    else:
        names = " and ".join(shortened(name, 36) for name in pairs[0].models)
        subject = f"Layers of {names}"
    if len({pair.languages for pair in pairs}) == 1:
        spoken = _language_name(pairs[0], short_codes(selection.languages()))
        subject += f" ({spoken})" if spoken else ""
    return subject


def _note(selection: Selection, panels: Sequence[Numbers], scale: ColourScale) -> list[str]:
    other = "other " if all(panel.alone for panel in panels) else ""
    ring = f"ring = most similar {other}layer of each row"
    pairing = selection.pairing if selection.point or selection.languages() != [""] else ""
    note = [*([pairing] if pairing else []), sel.sample_size(selection), ring]
    if any(panel.at_null.any() for panel in panels):
        note.append("× = not beyond 95 % of shuffles")
    if any(not np.isfinite(panel.values).all() for panel in panels):
        note.append("hatched = not computed")
    return [*note, scale.note] if scale.note else note


def draw_heatmap(
    info: Numbers, *, ax: Where = None, size: Size = "wide", cmap: str | None = None
) -> Drawing:
    """Square cells, a ring on each row's best; one colour bar for all panels."""
    info = info.replaced(scale=matrix.coloured(info.scale, cmap))
    width, count = width_of(size), len(info.panels)
    columns, height = _arrangement(info, size)
    rows = math.ceil(count / columns)
    axes = fig.frames(info, ax, count, columns, size, height)
    figure = fig.figure_of(axes[0])
    for frame, panel in zip(axes, info.panels, strict=True):
        image = _draw_panel(frame, info, panel, small=count > 1)
        fig.title_panel(frame, panel.title, (width - 1.15) / columns - 0.2)
    height = rows * fig.inches_of(axes[0])[1] if fig.is_given(axes) else fig.body_height(figure)
    _label_axes(info, axes, columns, height)
    bar = matrix.add_colour_bar(image, axes, info.scale, info.facts, height)
    if count == 1:
        tall, wide = info.panels[0].values.shape
        named = max((len(name) for name in info.panels[0].names_a), default=0)
        fig.keep_left(axes, (height - 0.55) * wide / tall + 1.35 + 0.075 * min(named, 14))
    fig.finish(axes)
    matrix.align_colour_bar(bar, axes)
    return figure


def _arrangement(info: Numbers, size: Size) -> tuple[int, float]:
    """Columns, and the height of all panels in inches, from the shape of the matrices."""
    room = width_of(size) - 1.15
    count = len(info.panels)
    shape = max(panel.values.shape[0] / panel.values.shape[1] for panel in info.panels)
    if count == 1:
        return 1, min((room - 0.2) * shape, 3.6) + 0.55
    named = len(_sides(info)) > 1
    most = {"single": 2, "medium": 3, "wide": 4}[size] + (count > 12)
    columns = math.ceil(count / math.ceil(count / most))
    if shape <= 0.75 and size == "wide":
        columns = min(columns, 3) if count <= 12 else columns
    around = 0.6 if named else 0.12
    while columns > 1 and (room / columns - around) < (0.95 if named else 0.6):
        columns -= 1
    body = (room / columns - around) * shape
    return columns, math.ceil(count / columns) * (body + (0.62 if named else 0.3)) + 0.45


def _sides(info: Numbers) -> set[tuple[str, str]]:
    return {(panel.label_a, panel.label_b) for panel in info.panels}


def _draw_panel(ax: Axes, info: Numbers, panel: Numbers, *, small: bool) -> Any:
    said = [
        [f"layers {_layers(panel, i, j)}: {number(float(value), 3)}" if np.isfinite(value) else ""
         for j, value in enumerate(row)]
        for i, row in enumerate(panel.values)
    ]  # fmt: skip
    image = matrix.draw_matrix(ax, panel.values, info.scale, said, origin="lower")
    ink = matrix.ink_on(panel.values, info.scale)
    rows = np.flatnonzero(panel.best >= 0)
    columns = panel.best[rows]
    side = 72 * (1.6 if small else 3.0) / max(panel.values.shape)  # of a cell, points, roughly
    ax.scatter(
        columns, rows, s=min(0.42 * side, 5.5) ** 2, facecolors="none", label="best",
        edgecolors=list(ink[rows, columns]), linewidths=min(0.09 * side, 1.1), zorder=3,
    )  # fmt: skip
    i, j = np.nonzero(panel.at_null)
    if i.size:
        ax.scatter(
            j, i, s=min(0.3 * side, 3.5) ** 2, marker="x", c=list(ink[i, j]), alpha=0.6,
            linewidths=min(0.06 * side, 0.7), zorder=2, label="not beyond the null",
        )  # fmt: skip
    _layer_ticks(ax.xaxis, panel.layers_b, panel.names_b, most=4 if small else 7)
    _layer_ticks(ax.yaxis, panel.layers_a, panel.names_a, most=5 if small else 8)
    return image


def _layer_ticks(axis: Any, layers: Sequence[int], names: Sequence[str], most: int) -> None:
    """Ticks at round layer numbers, with the names of layers that have some."""
    step = next(s for s in (1, 2, 3, 4, 6, 8, 12, 16, 24, 48, 1000) if len(layers) / s <= most)
    shown = [place for place, layer in enumerate(layers) if layer % step == 0]
    axis.set_ticks(shown, [shortened(str((names or layers)[place]), 14) for place in shown])


def _name_sides(ax: Axes, panel: Numbers, *, height: float, size: float) -> None:
    """Name rows and columns of a matrix that is about `height` inches high."""
    figure = fig.figure_of(ax)
    wide = height * panel.values.shape[1] / panel.values.shape[0]
    names = [
        fig.fitted(figure, f"layer of {label}", room, size=size)
        for label, room in ((panel.label_b, wide), (panel.label_a, height))
    ]
    ax.set_xlabel(names[0], fontsize=size)
    ax.set_ylabel(names[1], fontsize=size)


def _label_axes(info: Numbers, axes: Sequence[Axes], columns: int, height: float) -> None:
    """Name rows and columns once if all panels share them, else at each panel."""
    sides = _sides(info)
    if len(axes) == 1:
        less = 0.0 if fig.is_given(axes) else 0.4
        _name_sides(axes[0], info.panels[0], height=height - less, size=8.5)
    elif len(sides) > 1:
        each = 0.8 * (height / math.ceil(len(axes) / columns) - 0.62)
        for ax, panel in zip(axes, info.panels, strict=True):
            _name_sides(ax, panel, height=each, size=7.0)
    else:
        label_a, label_b = sides.pop()
        fig.name_axes(axes, f"layer of {label_b}", f"layer of {label_a}", height)
        for place, ax in enumerate(axes):
            ax.tick_params(labelleft=place % columns == 0, labelbottom=place + columns >= len(axes))


HEATMAP = Figure("heatmap", "similarity", heatmap_info, draw_heatmap)
