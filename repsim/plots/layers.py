"""Similarity layer by layer: curves with intervals, the null band, and covariates removed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.similarity_summary import matched_cells
from repsim.core.similarity_table import SimilarityTable
from repsim.plots.appearance import Size
from repsim.plots.names import listed, number, short_codes, shortened
from repsim.plots.selection import (
    MeasureFacts,
    Pair,
    Reading,
    Selection,
    depths,
    select,
    shallower_side,
    statistics_note,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 30
#: More curves than this are drawn as small multiples.
MAX_CURVES = 6
#: Panels with more curves than this show no dashed lines.
MAX_DASHED = 3
#: More language pairs than this are averaged without a thin line for each.
MAX_MEMBERS = 60


@dataclasses.dataclass(frozen=True)
class Curve:
    """One model, or pair of models, through its layers.

    Attributes:
        label: Name of the model or pair.
        role: Role that decides colour and marker.
        x: `[k]` layer, or relative depth.
        layers: The k layer pairs behind x.
        value: `[k]` the measure.
        low: `[k]` lower end of its interval; NaN, as in what follows, where the table has none.
        high: `[k]` upper end.
        null: `[k]` 95 % quantile of the null (5 % for a distance).
        partial: `[k]` the measure with covariates removed.
        members: `[m, k]` values of the m language pairs that were averaged; empty if there is one.
    """

    label: str
    role: str
    x: np.ndarray
    layers: tuple[tuple[int, int], ...]
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    null: np.ndarray
    partial: np.ndarray
    members: np.ndarray


@dataclasses.dataclass(frozen=True)
class LayersPanel:
    """Curves that share one frame, and the title above it ("" for a single frame)."""

    title: str
    curves: tuple[Curve, ...]


@dataclasses.dataclass(frozen=True)
class LayersData:
    """Everything that the figure shows.

    Attributes:
        panels: Frames in reading order.
        facts: The measure.
        title, note: Heading, and pieces of the grey line.
        x_label: "layer" or "relative depth".
        relative: Whether x is relative depth.
        limits: Of the y axis, shared by all panels.
        pairing: "same text" or "parallel text".
        averaged_over: In words, "" if nothing was averaged.
        show_partial: Whether the dashed lines are drawn; panels of many curves go without.
    """

    panels: tuple[LayersPanel, ...]
    facts: MeasureFacts
    title: str
    note: tuple[str, ...]
    x_label: str
    relative: bool
    limits: tuple[float, float]
    pairing: str
    averaged_over: str
    show_partial: bool

    @property
    def curves(self) -> list[Curve]:
        """All curves, panel by panel."""
        return [curve for panel in self.panels for curve in panel.curves]

    def caption(self) -> str:
        """What is shown, on how many sentences, with which interval, and how to read it."""
        names = list(dict.fromkeys(curve.label for curve in self.curves))
        shown = names if len(names) <= MAX_CURVES else [*names[:3], f"{len(names) - 3} others"]
        words = [
            f"{self.facts.label} layer by layer ({self.pairing}): {listed(shown)}",
            "; ".join(self.note),
        ]
        if self.averaged_over:
            words.append(f"Each curve is the mean over {self.averaged_over}")
        if len(self.curves) <= MAX_CURVES:
            peaks = [
                _peak(curve, panel.title or curve.label, self.facts)
                for panel in self.panels
                for curve in panel.curves
            ]
            words.append("Most similar at: " + "; ".join(peaks))
        more = "Higher" if self.facts.is_similarity else "Lower"
        side = "above" if self.facts.is_similarity else "below"
        reading = f"{more} is more similar"
        if any(np.isfinite(curve.null).any() for curve in self.curves):
            reading += f"; only what lies {side} the grey band is more than shuffled sentences give"
        return ". ".join([*words, reading]) + "."


def _peak(curve: Curve, name: str, facts: MeasureFacts) -> str:
    best = int(np.nanargmax(curve.value) if facts.is_similarity else np.nanargmin(curve.value))
    a, b = curve.layers[best]
    where = f"layer {a}" if a == b else f"layers {a} and {b}"
    return f"{name}, {where} ({number(float(curve.value[best]))})"


def prepare_layers(
    table: SimilarityTable,
    *,
    measure: str | None = None,
    point: str = "resid",
    pairing: str | None = None,
    models: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    average: bool | None = None,
    title: str | None = None,
) -> LayersData:
    """Curves of one measure, layers matched by relative depth.

    Same text gives one curve per pair of models, and a panel per language; parallel text gives one
    curve per model (or pair of models), the mean over its language pairs. More than six curves get
    a panel each.

    Args:
        table: The similarities.
        measure: Name of a measure; CKA, else the first, if left out.
        point: Hook point.
        pairing: "same text" or "parallel text"; the first of the two that there is if left out.
        models: Keep pairs of these models.
        languages: Keep these languages.
        average: Average over languages (or language pairs) rather than give each a panel. By
            default parallel text is averaged, and same text of over 30 languages or 6 pairs.
        title: Heading instead of the one that is made.

    Raises:
        UsageError: Nothing to draw, or more than 30 panels.

    Example:
        >>> from repsim.testing.tables import synthetic_table
        >>> data = prepare_layers(synthetic_table(), models=["minilm-l6"])
        >>> data.pairing, data.curves[0].x.tolist(), data.averaged_over
        ('parallel text', [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], '15 language pairs')
    """
    selection = select(
        table, measure=measure, point=point, pairing=pairing, models=models, languages=languages
    )
    grouped: dict[tuple[str, str], dict[Pair, list[dict[str, Any]]]] = {}
    for pair, rows in selection.pairs.items():
        grouped.setdefault(pair.models, {})[pair] = rows
    facets = list(dict.fromkeys(pair.languages for pair in selection.pairs))
    same_text = selection.pairing == "same text"
    if average is None:
        crowded = len(facets) > MAX_PANELS or len(grouped) > MAX_CURVES
        average = crowded or not same_text
    relative = len({deep for rows in selection.pairs.values() for deep in depths(rows)}) > 1
    panels = _panels(selection, grouped, facets, average=average, relative=relative)
    if len(panels) > MAX_PANELS:
        raise UsageError(
            f"this figure would have {len(panels)} panels, more than {MAX_PANELS}",
            hint="choose some with languages=[...] or models=[...], or pass average=True",
        )
    curves = [curve for panel in panels for curve in panel.curves]
    what = "languages" if same_text else "language pairs"
    averaged = f"{len(facets)} {what}" if average and len(facets) > 1 else ""
    show_partial = max(len(panel.curves) for panel in panels) <= MAX_DASHED
    note = _note(selection, curves, averaged, partial=show_partial)
    return LayersData(
        panels=panels,
        facts=selection.facts,
        title=title if title is not None else _title(selection, grouped, panels, facets, average),
        note=tuple(note),
        x_label="relative depth" if relative else "layer",
        relative=relative,
        limits=_limits(curves, selection.facts),
        pairing=selection.pairing,
        averaged_over=averaged,
        show_partial=show_partial,
    )


def _panels(
    selection: Selection,
    grouped: Mapping[tuple[str, str], dict[Pair, list[dict[str, Any]]]],
    facets: Sequence[tuple[str, str]],
    *,
    average: bool,
    relative: bool,
) -> tuple[LayersPanel, ...]:
    if average or len(facets) == 1:
        curves = [
            _curve(selection, models, list(pairs.values()), relative=relative)
            for models, pairs in grouped.items()
        ]
        if len(curves) <= MAX_CURVES:
            return (LayersPanel("", tuple(curves)),)
        return tuple(LayersPanel(curve.label, (curve,)) for curve in curves)
    codes = short_codes(selection.languages())
    panels = []
    for facet in facets:
        curves = [
            _curve(selection, models, [rows], relative=relative)
            for models, pairs in grouped.items()
            for pair, rows in pairs.items()
            if pair.languages == facet
        ]
        if len(curves) > MAX_CURVES:
            raise UsageError(
                f"{len(curves)} pairs of models in each language are more than one panel can show",
                hint="choose one language, or some models, or pass average=True",
            )
        panels.append(LayersPanel(_facet_name(facet, codes), tuple(curves)))
    return tuple(panels)


def _facet_name(facet: tuple[str, str], codes: Mapping[str, str]) -> str:
    first, second = (codes[language] for language in facet)
    return first if first == second else f"{first} – {second}"


def _curve(
    selection: Selection,
    models: tuple[str, str],
    members: Sequence[Sequence[dict[str, Any]]],
    *,
    relative: bool,
) -> Curve:
    """The mean of one pair of models over its language pairs, on the layer pairs that all have."""
    cells = [
        {(row["layer_a"], row["layer_b"]): Reading.of(row) for row in matched_cells(rows)}
        for rows in members
    ]
    common = [key for key in cells[0] if all(key in other for other in cells)]
    means = [Reading.mean([cell[key] for cell in cells]) for key in common]
    side = 0 if shallower_side(members[0]) == "layer_a" else 1
    depth = max(depths(members[0])[side], 1) if relative else 1
    several = len(cells) > 1

    def numbers(name: str) -> np.ndarray:
        return np.array([getattr(mean, name) for mean in means])

    first, second = models
    return Curve(
        label=first if first == second else f"{first} – {second}",
        role=selection.role(models),
        x=np.array([key[side] / depth for key in common]),
        layers=tuple(common),
        value=numbers("value"),
        low=numbers("ci_low"),
        high=numbers("ci_high"),
        null=numbers("null_q95"),
        partial=numbers("partial"),
        members=np.array([[cell[key].value for key in common] for cell in cells if several]),
    )


def _title(
    selection: Selection,
    grouped: Mapping[tuple[str, str], Any],
    panels: Sequence[LayersPanel],
    facets: Sequence[tuple[str, str]],
    average: bool,
) -> str:
    if len(grouped) > 1:
        between = "between models" if selection.pairing == "same text" else "across languages"
        subject = f"Similarity {between}, layer\u00a0by\u00a0layer"
    else:
        first, second = next(iter(grouped))
        subject = " and ".join(shortened(name, 36) for name in dict.fromkeys((first, second)))
        subject += ", layer\u00a0by\u00a0layer"
    if len(panels) == 1 and len(facets) == 1 and not (average and len(facets) > 1):
        codes = short_codes(selection.languages())
        subject += f" ({_facet_name(facets[0], codes)})"
    return subject


def _note(
    selection: Selection, curves: Sequence[Curve], averaged: str, *, partial: bool
) -> list[str]:
    def has(name: str) -> bool:
        return any(bool(np.isfinite(getattr(curve, name)).any()) for curve in curves)

    note = statistics_note(
        selection, interval=has("low"), null=has("null"), partial=partial and has("partial")
    )
    note.insert(0, selection.pairing)
    if averaged:
        note.insert(1, f"mean over {averaged} (thin: each)")
    if any(a != b for curve in curves for a, b in curve.layers):
        note.append("layers matched by relative depth")
    return note


def _limits(curves: Sequence[Curve], facts: MeasureFacts) -> tuple[float, float]:
    """From zero, or below where values are, to one, or a little over data that stay low."""
    parts = [
        part
        for curve in curves
        for part in (
            curve.value,
            curve.low,
            curve.high,
            curve.null,
            curve.partial,
            curve.members.ravel(),
        )
    ]
    everything = np.concatenate(parts)
    everything = everything[np.isfinite(everything)]
    low, high = float(everything.min()), float(everything.max())
    span = max(high, 0.0) - min(low, 0.0) or 1.0
    bottom = 0.0 if low >= 0 else low - 0.06 * span
    if facts.is_similarity and facts.high == 1 and high > 0.6:
        return bottom, max(1.0, high + 0.03)
    return bottom, max(high, 0.0) + 0.12 * span


def null_envelope(
    curves: Sequence[Curve], *, similarity: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """X and the highest (of a distance the lowest) null quantile of several curves.

    Returns:
        Two `[k]` arrays over the union of the curves' x, or None if no curve has a null.
    """
    known = [
        (curve.x[mask], curve.null[mask])
        for curve in curves
        if (mask := np.isfinite(curve.null)).any()
    ]
    if not known:
        return None
    x = np.unique(np.concatenate([at for at, _ in known]))
    pick = np.max if similarity else np.min
    return x, pick([np.interp(x, at, null) for at, null in known], axis=0)


def plot_layers(
    table: SimilarityTable, *, ax: Axes | None = None, size: Size = "wide", **options: Any
) -> Figure:
    """Draw similarity layer by layer.

    Args:
        table: The similarities.
        ax: Axes to draw into; a figure of its own is made if left out. Takes one panel.
        size: "single" (3.4 in), "medium" (5 in) or "wide" (7 in).
        **options: See `prepare_layers`.

    Returns:
        The figure (`ax.figure` if an axes was given).

    Raises:
        UsageError: Nothing to draw, or too much for one figure.
    """
    from repsim.plots.drawing.layers import draw_layers

    return draw_layers(prepare_layers(table, **options), ax=ax, size=size)
