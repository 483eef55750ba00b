"""Every layer against every layer: heatmaps of a pair of models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.similarity_table import COLUMNS, SimilarityTable
from repsim.plots.appearance import Size
from repsim.plots.colours import ColourScale
from repsim.plots.names import listed, number, short_codes, shortened
from repsim.plots.selection import MeasureFacts, Pair, Selection, depths, sample_size, select

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 30
#: More panels than this are cut to one pair of models, unless models are chosen.
MANY_PANELS = 12


@dataclasses.dataclass(frozen=True)
class HeatmapPanel:
    """One layer x layer matrix.

    Attributes:
        title: What tells it from the other panels; "" for a single one.
        label_a, label_b: Names of rows and columns.
        layers_a, layers_b: Layer numbers of rows and columns.
        values: `[len(layers_a), len(layers_b)]`, NaN where the table has no row.
        best: `[len(layers_a)]` column of the most similar layer of each row, -1 for an empty row.
        at_null: Same shape as values: True where the value is not beyond the null's 95 %.
    """

    title: str
    label_a: str
    label_b: str
    layers_a: tuple[int, ...]
    layers_b: tuple[int, ...]
    values: np.ndarray
    best: np.ndarray
    at_null: np.ndarray


@dataclasses.dataclass(frozen=True)
class HeatmapData:
    """Everything that the figure shows.

    Attributes:
        panels: Matrices in reading order.
        facts: The measure.
        scale: Colours, shared by all panels.
        title, note: Heading, and pieces of the grey line.
    """

    panels: tuple[HeatmapPanel, ...]
    facts: MeasureFacts
    scale: ColourScale
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, on how many sentences, and how to read it."""
        best = []
        for panel in self.panels[:6]:
            pick = np.nanargmax if self.facts.is_similarity else np.nanargmin
            i, j = np.unravel_index(int(pick(panel.values)), panel.values.shape)
            name = f"{panel.title}: " if panel.title else ""
            best.append(
                f"{name}{panel.layers_a[i]} and {panel.layers_b[j]} "
                f"({number(float(panel.values[i, j]))})"
            )
        first = self.panels[0]
        more = "Brighter" if len(self.panels) == 1 else "In all panels, brighter"
        return (
            f"{self.facts.label} of every layer of {first.label_a} (rows) with every layer of "
            f"{first.label_b} (columns). {'; '.join(self.note)}. {more} is more similar; a ring "
            f"marks the layer most similar to each row's. Most similar layers: {listed(best)}."
        )


def prepare_heatmap(
    table: SimilarityTable,
    *,
    measure: str | None = None,
    point: str = "resid",
    pairing: str | None = None,
    models: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    column: str = "value",
    limits: tuple[float, float] | None = None,
    title: str | None = None,
) -> HeatmapData:
    """Layer x layer matrices, one panel per pair of (model, language); rows are the shallower side.

    Args:
        table: The similarities.
        measure: Name of a measure; CKA, else the first, if left out.
        point: Hook point.
        pairing: "same text" or "parallel text"; the first of the two that there is if left out.
        models: Keep pairs of these models. Without a choice, a table of more than 12
            panels shows its first pair of models.
        languages: Keep these languages.
        column: Column of the table ("value", "partial", "calibrated" ...).
        limits: Ends of the colour scale; 0 and 1 for a similarity.
        title: Heading instead of the one that is made.

    Raises:
        UsageError: Nothing to draw, or more than 30 panels of one pair of models.

    Example:
        >>> from repsim.testing.tables import synthetic_table
        >>> data = prepare_heatmap(synthetic_table(), languages=["deu_Latn"])
        >>> data.panels[0].values.shape, data.scale.cmap
        ((7, 13), 'magma')
    """
    if column not in COLUMNS or COLUMNS[column][0] != "float":
        raise UsageError(
            f"column '{column}' holds no number to colour",
            hint=f"one of {', '.join(n for n, (kind, _) in COLUMNS.items() if kind == 'float')}",
        )
    selection = select(
        table, measure=measure, point=point, pairing=pairing, models=models, languages=languages
    )
    pairs = list(selection.pairs)
    several = len({pair.models for pair in pairs})
    cut = len(pairs) > MANY_PANELS and models is None and several > 1
    if cut:
        pairs = [pair for pair in pairs if pair.models == pairs[0].models]
    if len(pairs) > MAX_PANELS:
        raise UsageError(
            f"this figure would have {len(pairs)} panels, more than {MAX_PANELS}",
            hint="choose some with languages=[...]",
        )
    facts = selection.facts
    if column not in ("value", "partial", "null_q95", "null_mean", "ci_low", "ci_high"):
        facts = dataclasses.replace(
            facts, label=f"{facts.label}, {column}", direction="similarity", low=None, high=1.0
        )
    elif column != "value":
        facts = dataclasses.replace(facts, label=f"{facts.label}, {column.replace('_', ' ')}")
    one_models = len({pair.models for pair in pairs}) == 1
    one_language = len({pair.languages for pair in pairs}) == 1
    panels = tuple(
        _panel(selection, pair, facts, column, models=not one_models, language=not one_language)
        for pair in pairs
    )
    scale = ColourScale.of(facts, np.concatenate([p.values.ravel() for p in panels]), limits)
    return HeatmapData(
        panels=panels,
        facts=facts,
        scale=scale,
        title=title if title is not None else _title(selection, pairs),
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
) -> HeatmapPanel:
    rows = selection.pairs[pair]
    deep_a, deep_b = depths(rows)
    if deep_a > deep_b:
        pair = pair.swapped()
        rows = [row | {"layer_a": row["layer_b"], "layer_b": row["layer_a"]} for row in rows]
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
    ranked = np.where(np.isfinite(values), sign * values, -np.inf)
    best = np.where(np.isfinite(values).any(axis=1), ranked.argmax(axis=1), -1)
    codes = short_codes(selection.languages())
    spoken = _language_name(pair, codes)
    named = " – ".join(dict.fromkeys(pair.models))
    same_text, same_model = pair.language_a == pair.language_b, pair.model_a == pair.model_b

    def side(model: str, code: str) -> str:
        return model if same_text else code if same_model and not models else f"{model} ({code})"

    return HeatmapPanel(
        title=spoken if language else named if models else "",
        label_a=side(pair.model_a, codes[pair.language_a]),
        label_b=side(pair.model_b, codes[pair.language_b]),
        layers_a=tuple(layers_a.tolist()),
        layers_b=tuple(layers_b.tolist()),
        values=values,
        best=best,
        at_null=at_null,
    )


def _language_name(pair: Pair, codes: dict[str, str]) -> str:
    a, b = codes[pair.language_a], codes[pair.language_b]
    return a if a == b else f"{a} – {b}"


def _title(selection: Selection, pairs: Sequence[Pair]) -> str:
    if len({pair.models for pair in pairs}) > 1:
        subject = "Every layer against every layer"
    elif pairs[0].model_a == pairs[0].model_b:
        subject = f"Layers of {shortened(pairs[0].model_a, 36)} across languages"
    else:
        names = " and ".join(shortened(name, 36) for name in pairs[0].models)
        subject = f"Layers of {names}"
    if len({pair.languages for pair in pairs}) == 1:
        subject += f" ({_language_name(pairs[0], short_codes(selection.languages()))})"
    return subject


def _note(selection: Selection, panels: Sequence[HeatmapPanel], scale: ColourScale) -> list[str]:
    note = [selection.pairing, sample_size(selection), "ring = most similar layer of each row"]
    if any(panel.at_null.any() for panel in panels):
        note.append("× = not beyond 95 % of shuffles")
    if any(not np.isfinite(panel.values).all() for panel in panels):
        note.append("hatched = not computed")
    return [*note, scale.note] if scale.note else note


def plot_heatmap(
    table: SimilarityTable, *, ax: Axes | None = None, size: Size = "wide", **options: Any
) -> Figure:
    """Draw every layer of one model against every layer of another.

    Args:
        table: The similarities.
        ax: Axes to draw into; a figure of its own is made if left out. Takes one panel.
        size: "single" (3.4 in), "medium" (5 in) or "wide" (7 in).
        **options: See `prepare_heatmap`.

    Returns:
        The figure (`ax.figure` if an axes was given).

    Raises:
        UsageError: Nothing to draw, or too much for one figure.
    """
    from repsim.plots.drawing.heatmap import draw_heatmap

    return draw_heatmap(prepare_heatmap(table, **options), ax=ax, size=size)
