"""Every language against every language: matrices with a dendrogram on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.similarity_summary import matched_cells
from repsim.core.similarity_table import SimilarityTable
from repsim.plots import selection as sel
from repsim.plots.appearance import GREY, Size, width_of
from repsim.plots.colours import ColourScale
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing import matrix
from repsim.plots.names import number, short_codes
from repsim.plots.selection import Pair, Selection
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where

MAX_PANELS = 12
#: Height of a dendrogram, as a share of its matrix.
TREE = 0.16


def _caption(info: Numbers) -> str:
    words = []
    for panel in info.panels:
        lower = np.tril(np.ones_like(panel.values, dtype=bool), -1) & np.isfinite(panel.values)
        signed = np.where(lower, panel.values * (1 if info.facts.is_similarity else -1), -np.inf)
        i, j = np.unravel_index(int(signed.argmax()), signed.shape)
        mean, most = (number(float(v)) for v in (panel.values[lower].mean(), panel.values[i, j]))
        pair = f"{panel.languages[i]} and {panel.languages[j]}"
        words.append(f"{panel.title}: mean {mean}, most similar {pair} ({most})")
    return (
        f"{info.facts.label} between languages on parallel text. {'; '.join(info.note)}. "
        "Brighter is more similar; the tree joins languages by average linkage, the lower the "
        f"join the more similar. {'; '.join(words)}."
    )


def languages_info(
    table: SimilarityTable,
    *,
    measure: str | None = None,
    point: str = "resid",
    models: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    layer: int | None = None,
) -> Numbers:
    """Language x language matrices, one panel per model."""
    selection = sel.select(
        table, measure=measure, point=point, pairing="parallel text", models=models,
        languages=languages,
    )  # fmt: skip
    panels = tuple(
        _panel(selection, name, pairs, layer) for name, pairs in _by_model(selection).items()
    )
    sel.limit_panels(len(panels), MAX_PANELS, "choose some with models=[...]")
    scale = ColourScale.of(selection.facts, np.concatenate([p.values.ravel() for p in panels]))
    note = [sel.sample_size(selection), "average linkage"]
    most = max(len(panel.languages) for panel in panels)
    annotated = most <= (16 if len(panels) <= 2 and scale.high <= 1 else 10)
    if annotated:
        note.append("numbers × 100")
    if layer is None:
        note.insert(1, "at the layer where languages agree most")
    if any(np.isnan(p.values[np.tril_indices(len(p.languages), -1)]).any() for p in panels):
        note.append("hatched = not computed, joined at the mean distance")
    return Numbers(
        _caption,
        panels=panels,
        facts=selection.facts,
        scale=scale,
        title="Language by language",
        note=(*note, scale.note) if scale.note else tuple(note),
        annotated=annotated,
    )


def _by_model(selection: Selection) -> dict[str, dict[Pair, list[dict[str, Any]]]]:
    """Panel name -> its pairs: one panel per model, else one for models of one language each."""
    within: dict[str, dict[Pair, list[dict[str, Any]]]] = {}
    for pair, rows in selection.pairs.items():
        if pair.model_a == pair.model_b:
            within.setdefault(pair.model_a, {})[pair] = rows
    if within:
        return within
    readers: dict[str, set[str]] = {}
    for pair in selection.pairs:
        readers.setdefault(pair.language_a, set()).add(pair.model_a)
        readers.setdefault(pair.language_b, set()).add(pair.model_b)
    for language, names in readers.items():
        if len(names) > 1:
            raise UsageError(
                f"language '{language}' was read by several models "
                f"({', '.join(sorted(names))}), and none of them read two languages",
                hint="choose one model for each language with models=[...]",
            )
    return {"one model for each language": dict(selection.pairs)}


def _panel(
    selection: Selection, name: str, pairs: Mapping[Pair, list[dict[str, Any]]], layer: int | None
) -> Numbers:
    languages = list(dict.fromkeys(language for pair in pairs for language in pair.languages))
    if len(languages) < 2:
        raise UsageError("a language matrix needs at least two languages")
    by_layer = _matrices(pairs, languages)
    if layer is not None and layer not in by_layer:
        raise UsageError(
            f"layer {layer} of '{name}' is not in the table", hint=f"layers: {sorted(by_layer)}"
        )
    sign = 1 if selection.facts.is_similarity else -1
    means = {at: sign * float(np.nanmean(matrix)) for at, matrix in by_layer.items()}
    shown = layer if layer is not None else max(means, key=lambda at: (means[at], -at))
    values = by_layer[shown]
    distance = selection.facts.identity - values if sign > 0 else values
    linkage, order = cluster(distance)
    deepest = max(depth for rows in pairs.values() for depth in sel.depths(rows))
    codes = short_codes(languages)
    return Numbers(
        title=f"{name}, layer {shown} of {deepest}",
        languages=tuple(codes[languages[i]] for i in order),
        values=values[np.ix_(order, order)],
        linkage=linkage,
        order=tuple(order),
        layer=shown,
    )


def _matrices(
    pairs: Mapping[Pair, list[dict[str, Any]]], languages: Sequence[str]
) -> dict[int, np.ndarray]:
    """Layer -> symmetric `[l, l]`; the two orders of an asymmetric measure are averaged."""
    place = {language: i for i, language in enumerate(languages)}
    found: dict[int, dict[tuple[int, int], list[float]]] = {}
    for pair, rows in pairs.items():
        ends = sorted((place[pair.language_a], place[pair.language_b]))
        side = sel.shallower_side(rows)
        for cell in matched_cells(rows):
            cells = found.setdefault(cell[side], {})
            cells.setdefault((ends[0], ends[1]), []).append(cell["value"])
    matrices = {}
    for at, cells in sorted(found.items()):
        matrix = np.full((len(languages), len(languages)), np.nan)
        for (i, j), values in cells.items():
            matrix[i, j] = matrix[j, i] = float(np.mean(values))
        matrices[at] = matrix
    return matrices


def cluster(distance: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Average linkage of condensed distances, leaves ordered so that neighbours are close."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    filled = np.where(np.isfinite(distance), distance, np.nan)
    np.fill_diagonal(filled, np.nan)
    mean = float(np.nanmean(filled)) if np.isfinite(filled).any() else 1.0
    filled = np.where(np.isfinite(filled), np.maximum(filled, 0.0), mean)
    np.fill_diagonal(filled, 0.0)
    # A square matrix would be taken for coordinates: the distances are condensed first.
    tree = linkage(squareform(filled, checks=False), method="average", optimal_ordering=True)
    return tree, [int(leaf) for leaf in leaves_list(tree)]


def draw_languages(
    info: Numbers, *, ax: Where = None, size: Size = "wide", cmap: str | None = None
) -> Drawing:
    """Matrices with hundredths below the diagonal, their dendrograms on top."""
    info = info.replaced(scale=matrix.coloured(info.scale, cmap))
    count = len(info.panels)
    columns = fig.columns_of(count, size, wide=2 if count in (2, 4) else 3)
    side = min((width_of(size) - 1.0) / columns - 0.35, 3.4)
    height = -(-count // columns) * (side * (1 + TREE) + 0.6)
    axes = fig.frames(info, ax, count, columns, size, height)
    for frame, panel in zip(axes, info.panels, strict=True):
        image = _draw_panel(frame, panel, info.scale)
        fig.title_panel(frame, panel.title, side, y=1 + TREE)
    bar = matrix.add_colour_bar(image, axes, info.scale, info.facts, side + 0.3)
    if count == 1:
        fig.keep_left(axes, side + 1.5)
    figure = fig.finish(axes)
    matrix.align_colour_bar(bar, axes)
    for frame, panel in zip(axes, info.panels, strict=True):
        if info.annotated:
            _annotate(frame, panel, info.scale)
    return figure


def _draw_panel(ax: Axes, panel: Numbers, scale: ColourScale) -> Any:
    said = matrix.in_words(panel.values, panel.languages, panel.languages)
    image = matrix.draw_matrix(ax, panel.values, scale, said)
    count = len(panel.languages)
    matrix.blank_diagonal(ax, count)
    small: dict[str, Any] = {"fontsize": 7.5 if count <= 16 else 5.5 if count <= 30 else 3.5}
    ax.set_xticks(range(count), panel.languages, rotation=90 if _turned(panel) else 0, **small)
    ax.set_yticks(range(count), panel.languages, **small)
    _draw_tree(ax, panel)
    return image


def _turned(panel: Numbers) -> bool:
    """Whether codes below the matrix must stand upright to have room."""
    return len(panel.languages) * max(len(code) for code in panel.languages) > 28


def _draw_tree(ax: Axes, panel: Numbers) -> None:
    """The dendrogram, glued to the matrix: leaf i stands at 10 i + 5 in SciPy's coordinates."""
    from scipy.cluster.hierarchy import dendrogram

    tree = dendrogram(panel.linkage, no_plot=True)
    above = ax.inset_axes((0.0, 1.01, 1.0, TREE - 0.03))
    for x, height in zip(tree["icoord"], tree["dcoord"], strict=True):
        above.plot(x, height, color=GREY, linewidth=0.9, solid_joinstyle="miter")
    above.set_xlim(0, 10 * len(panel.languages))
    above.set_ylim(0, float(panel.linkage[:, 2].max()) * 1.05 or 1.0)
    above.axis("off")


def _annotate(ax: Axes, panel: Numbers, scale: ColourScale) -> None:
    """Hundredths in the lower triangle, as large as the cells allow."""
    longest = 3 if max(abs(scale.low), abs(scale.high)) > 1 else 2
    fontsize = matrix.size_in_cells(ax, len(panel.languages), 0.66 * longest)
    ink = matrix.ink_on(panel.values, scale)
    for i, j in zip(*np.nonzero(np.isfinite(np.tril(panel.values, -1))), strict=True):
        if i > j:
            ax.text(
                j, i, number(100 * float(panel.values[i, j]), 0), ha="center", va="center",
                fontsize=fontsize, color=ink[i, j], zorder=4,
            )  # fmt: skip


LANGUAGES = Figure("languages", "similarity", languages_info, draw_languages)
