"""Checkpoints over training: how alike each is to the last one (or another), layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from repsim.core.errors import UsageError, unknown_name
from repsim.core.similarity_summary import matched_cells
from repsim.core.similarity_table import SimilarityTable
from repsim.plots import selection as sel
from repsim.plots.appearance import (
    FAINT,
    GREY,
    MARKERS,
    NULL_BAND,
    Look,
    Size,
    line_marker,
    width_of,
)
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.labels import place_of
from repsim.plots.names import number, short_codes
from repsim.plots.selection import Reading, Selection
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where

MAX_PANELS = 12
#: Relative depths that are shown, as far as a model has layers there.
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
#: From the embedding (bright) to the last block (dark), in grey too.
_INKS = ("#E69F00", "#56B4E9", "#0072B2", "#7A3E9D", "#1F2733")


def _caption(info: Numbers) -> str:
    said = []
    for panel in info.panels:
        middle = panel.curves[len(panel.curves) // 2]
        ends = [f"{number(float(middle.value[k]))} at {counted(info.at[k])}" for k in (0, -1)]
        said.append(f"{panel.title + ': ' if panel.title else ''}{' and '.join(ends)}")
    return (
        f"{info.facts.label} of {len(info.at)} checkpoints with {info.reference}, layer by "
        f"layer, over {info.unit}. {'; '.join(info.note)}. Middle layer: {'; '.join(said)}. "
        "Neighbouring checkpoints share nearly all of their training, so that the curves rise "
        "towards the reference by construction: put a run of another seed beside them."
    )


def counted(value: float) -> str:
    """A number of steps or tokens in short."""
    for scale, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= max(scale, 1e4):
            return f"{value / scale:.3g}{suffix}"
    return f"{value:,.0f}"


def checkpoints_info(
    table: SimilarityTable,
    *,
    to: str = "last",
    steps: Mapping[str, float] | None = None,
    measure: str | None = None,
    point: str = "resid",
    languages: Sequence[str] | None = None,
) -> Numbers:
    """Similarity of checkpoints to one of them over training, a curve per depth."""
    known, unit = _progress(table, steps)
    ordered = sorted(known, key=lambda name: known[name])
    if len(ordered) < 3:
        raise UsageError(
            f"{len(ordered)} checkpoints state their steps; a curve needs three",
            hint="compare more checkpoints of a run, or state them: steps={'NAME': 1000, ...}",
        )
    reference = {"last": ordered[-1], "first": ordered[0]}.get(to, to)
    if reference not in known:
        raise unknown_name("checkpoint", to, ["last", "first", *ordered])
    selection = sel.select(
        table, measure=measure, point=point, pairing="same text", languages=languages
    )
    others = [name for name in ordered if name != reference]
    spoken = selection.languages()
    sel.limit_panels(len(spoken), MAX_PANELS, "choose some with languages=[...]")
    codes = short_codes(spoken)
    panels = tuple(
        _panel(selection, language, codes[language] if len(spoken) > 1 else "", reference, others)
        for language in spoken
    )
    note = sel.statistics_note(
        selection,
        interval=any(np.isfinite(c.low).any() for p in panels for c in p.curves),
        null=any(math.isfinite(panel.null) for panel in panels),
    )
    return Numbers(
        _caption,
        panels=panels,
        at=np.array([known[name] for name in others], dtype=float),
        unit=unit,
        reference=reference,
        place=known[reference],
        deepest=max(curve.layer for panel in panels for curve in panel.curves),
        facts=selection.facts,
        title=f"Similarity to {reference} over training",
        note=("same text", *note),
    )


def _progress(
    table: SimilarityTable, steps: Mapping[str, float] | None
) -> tuple[dict[str, float], str]:
    """How far each model was in training, in tokens where all of them state these."""
    if steps is not None:
        return {name: float(value) for name, value in steps.items()}, "steps"
    models: Mapping[str, Mapping[str, Any]] = table.info.get("models", {})
    for unit in ("tokens", "step"):
        found = {name: float(of[unit]) for name, of in models.items() if of.get(unit) is not None}
        if len(found) >= 3 and (unit == "step" or len(found) == len(models)):
            return found, unit if unit == "tokens" else "steps"
    return found, "steps"


def _panel(
    selection: Selection, language: str, title: str, reference: str, others: Sequence[str]
) -> Numbers:
    found: dict[str, dict[int, Reading]] = {}
    for pair, rows in selection.pairs.items():
        if reference in pair.models and pair.languages == (language, language):
            (other,) = {*pair.models} - {reference}
            side = "layer_a" if pair.model_a == reference else "layer_b"
            found[other] = {row[side]: Reading.of(row) for row in matched_cells(rows)}
    missing = [name for name in others if name not in found]
    if missing:
        raise UsageError(
            f"the table does not compare {missing[0]} with {reference} on {language}",
            hint="choose another reference with to=NAME, or compare them",
        )
    layers = sorted(set.intersection(*(set(cells) for cells in found.values())))
    shown = dict.fromkeys(layers[round(depth * (len(layers) - 1))] for depth in DEPTHS)
    curves = []
    for layer in shown:
        cells = [found[name][layer] for name in others]
        value, low, high = (np.array([getattr(cell, name) for cell in cells], dtype=float)
                            for name in ("value", "ci_low", "ci_high"))  # fmt: skip
        curves.append(Numbers(layer=layer, value=value, low=low, high=high))
    nulls = [cell.null_q95 for cells in found.values() for cell in cells.values()]
    worst = max if selection.facts.is_similarity else min
    return Numbers(
        title=title,
        curves=tuple(curves),
        null=worst(filter(math.isfinite, nulls), default=math.nan),
    )


def draw_checkpoints(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """A curve per layer over the logarithm of training, the reference as a star at identity."""
    from matplotlib.patches import Patch

    count = len(info.panels)
    columns = fig.columns_of(count, size)
    room = width_of(size) / columns
    height = -(-count // columns) * min(max(0.62 * room, 2.1), 2.8) + 0.2
    layers = dict.fromkeys(curve.layer for panel in info.panels for curve in panel.curves)
    found = dict(zip(layers, map(_look, range(len(layers))), strict=True))
    named = {_name(layer, info.deepest): line_marker(look, 3.6) for layer, look in found.items()}
    star: dict[str, Any] = {"marker": "*", "markersize": 9, "color": GREY, "linestyle": ""}
    key: list[Any] = fig.key_of(named | {f"{info.reference} itself": star})
    if any(math.isfinite(panel.null) for panel in info.panels):
        key.append(Patch(facecolor=NULL_BAND, edgecolor=FAINT, label="null"))
    shared = {"sharex": True, "sharey": True}
    axes = fig.frames(info, ax, count, columns, size, height, key=key, **shared)
    everything = np.array([*info.at, info.place])
    for frame, panel in zip(axes, info.panels, strict=True):
        frame.grid(visible=True, axis="y")
        _draw_curves(frame, info, panel, found, everything)
        frame.plot(place_of(np.array([info.place]), everything), [info.facts.identity], **star)
        _count_axis(frame, everything)
        fig.title_panel(frame, panel.title, room - 0.4)
    fig.name_axes(axes, f"{info.unit} (log)", info.facts.axis_label, height)
    return fig.finish(axes)


def _look(place: int) -> Look:
    colour = _INKS[place % len(_INKS)]
    return Look(colour, colour, colour, MARKERS[place % len(MARKERS)], True)


def _name(layer: int, deepest: int) -> str:
    return {0: "embedding", deepest: f"layer {layer} (last)"}.get(layer, f"layer {layer}")


def _draw_curves(
    ax: Axes, info: Numbers, panel: Numbers, found: Mapping[int, Look],
    everything: np.ndarray,
) -> None:  # fmt: skip
    places = place_of(info.at, everything)
    if math.isfinite(panel.null):
        end = 0.0 if info.facts.is_similarity else info.facts.high or panel.null * 1.1
        ax.axhspan(min(end, panel.null), max(end, panel.null), color=NULL_BAND, zorder=0.5)
    for curve in panel.curves:
        look = found[curve.layer]
        if np.isfinite(curve.low).any():
            ax.fill_between(places, curve.low, curve.high, color=look.fill, alpha=0.13, linewidth=0)
        label = _name(curve.layer, info.deepest)
        ax.plot(places, curve.value, label=label, zorder=3, **line_marker(look, 3.6))
    if info.facts.is_similarity:
        low = min(0.0, min(float(np.nanmin(curve.value)) for curve in panel.curves) - 0.03)
        ax.set_ylim(low, max(1.04, ax.get_ylim()[1]))


def _count_axis(ax: Axes, everything: np.ndarray) -> None:
    """Ticks at the checkpoints themselves, as far as their numbers have room."""
    places = place_of(everything, everything)
    span = float(np.ptp(places)) or 1.0
    shown: dict[float, str] = {}
    for place, value in sorted(zip(places.tolist(), everything.tolist(), strict=True)):
        if not shown or place - list(shown)[-1] > 0.15 * span:
            shown[place] = counted(value)
    ax.set_xticks(list(shown), list(shown.values()))
    ax.set_xlim(places.min() - 0.05 * span, places.max() + 0.05 * span)
    ax.axvline(places[-1], color=FAINT, linewidth=0.8, zorder=1)


CHECKPOINTS = Figure("checkpoints", "similarity", checkpoints_info, draw_checkpoints)
