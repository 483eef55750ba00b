"""Similarity layer by layer: curves with intervals, the null band, and covariates removed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.similarity_summary import matched_cells
from repsim.core.similarity_table import SimilarityTable
from repsim.plots import selection as sel
from repsim.plots.appearance import (
    FAINT,
    GREY,
    NULL_BAND,
    Look,
    Size,
    line_marker,
    looks,
    width_of,
)  # fmt: skip
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.labels import EndLabel, spread_end_labels, write_end_labels
from repsim.plots.names import listed, number, short_codes, shortened, wrapped
from repsim.plots.selection import MeasureFacts, Pair, Reading, Selection
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where

MAX_PANELS = 30
#: More curves than this are drawn as small multiples.
MAX_CURVES = 6
#: Panels with more curves than this show no dashed lines.
MAX_DASHED = 3
#: More language pairs than this are averaged without a thin line for each.
MAX_MEMBERS = 60


class Curve(NamedTuple):
    """A model, or pair of models, through its layers; NaN where there is no such number."""

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


def _caption(info: Numbers) -> str:
    names = list(dict.fromkeys(curve.label for curve in info.curves))
    shown = names if len(names) <= MAX_CURVES else [*names[:3], f"{len(names) - 3} others"]
    words = [
        f"{info.facts.label} layer by layer ({info.pairing}): {listed(shown)}",
        "; ".join(info.note),
    ]
    if info.averaged_over:
        words.append(f"Each curve is the mean over {info.averaged_over}")
    if len(info.curves) <= MAX_CURVES:
        peaks = [
            _peak(curve, panel.title or curve.label, info.facts)
            for panel in info.panels
            for curve in panel.curves
        ]
        words.append("Most similar at: " + "; ".join(peaks))
    more = "Higher" if info.facts.is_similarity else "Lower"
    side = "above" if info.facts.is_similarity else "below"
    reading = f"{more} is more similar"
    if any(np.isfinite(curve.null).any() for curve in info.curves):
        reading += f"; only what lies {side} the grey band is more than shuffled sentences give"
    return ". ".join([*words, reading]) + "."


def _peak(curve: Curve, name: str, facts: MeasureFacts) -> str:
    best = int(np.nanargmax(curve.value) if facts.is_similarity else np.nanargmin(curve.value))
    a, b = curve.layers[best]
    where = f"layer {a}" if a == b else f"layers {a} and {b}"
    return f"{name}, {where} ({number(float(curve.value[best]))})"


def layers_info(
    table: SimilarityTable,
    *,
    measure: str | None = None,
    point: str = "resid",
    pairing: str | None = None,
    models: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    average: bool | None = None,
    limits: tuple[float, float] | None = None,
) -> Numbers:
    """Curves of one measure, layers matched by relative depth."""
    selection = sel.select(
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
    relative = len({deep for rows in selection.pairs.values() for deep in sel.depths(rows)}) > 1
    panels = _panels(selection, grouped, facets, average=average, relative=relative)
    sel.limit_panels(
        len(panels), MAX_PANELS,
        "choose some with languages=[...] or models=[...], or pass average=True",
    )  # fmt: skip
    curves = [curve for panel in panels for curve in panel.curves]
    what = "languages" if same_text else "language pairs"
    averaged = f"{len(facets)} {what}" if average and len(facets) > 1 else ""
    show_partial = max(len(panel.curves) for panel in panels) <= MAX_DASHED
    note = _note(selection, curves, averaged, partial=show_partial)
    shown = facets if len(facets) == len(panels) == 1 else []
    made = _title(selection, list(grouped), _facet_names(selection, shown))
    return Numbers(
        _caption,
        panels=panels,
        curves=curves,
        facts=selection.facts,
        title=made,
        note=tuple(note),
        relative=relative,
        limits=limits if limits is not None else _limits(curves, selection.facts),
        pairing=selection.pairing,
        averaged_over=averaged,
        show_partial=show_partial,
        level=round(100 * float((selection.info.get("statistics") or {}).get("level", 0.95))),
    )


def _panels(
    selection: Selection,
    grouped: Mapping[tuple[str, str], dict[Pair, list[dict[str, Any]]]],
    facets: Sequence[tuple[str, str]],
    *,
    average: bool,
    relative: bool,
) -> tuple[Numbers, ...]:
    if average or len(facets) == 1:
        curves = [
            _curve(selection, models, list(pairs.values()), relative=relative)
            for models, pairs in grouped.items()
        ]
        if len(curves) <= MAX_CURVES:
            return (Numbers(title="", curves=tuple(curves)),)
        return tuple(Numbers(title=curve.label, curves=(curve,)) for curve in curves)
    panels = []
    for facet, name in zip(facets, _facet_names(selection, facets), strict=True):
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
        panels.append(Numbers(title=name, curves=tuple(curves)))
    return tuple(panels)


def _facet_names(selection: Selection, facets: Sequence[tuple[str, str]]) -> list[str]:
    codes = short_codes(selection.languages())
    return [" – ".join(dict.fromkeys(codes[name] for name in facet)) for facet in facets]


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
    means = np.array([np.mean([cell[key] for cell in cells], axis=0) for key in common])
    numbers = dict(zip(Reading._fields, means.T, strict=True))
    side = 0 if sel.shallower_side(members[0]) == "layer_a" else 1
    depth = max(sel.depths(members[0])[side], 1) if relative else 1
    return Curve(
        label=" – ".join(dict.fromkeys(models)),
        role=selection.role(models),
        x=np.array([key[side] / depth for key in common]),
        layers=tuple(common),
        value=numbers["value"],
        low=numbers["ci_low"],
        high=numbers["ci_high"],
        null=numbers["null_q95"],
        partial=numbers["partial"],
        members=np.array([[c[key].value for key in common] for c in cells if len(cells) > 1]),
    )


def _title(
    selection: Selection, models: Sequence[tuple[str, str]], languages: Sequence[str]
) -> str:
    if len(models) > 1:
        between = "between models" if selection.pairing == "same text" else "across languages"
        subject = f"Similarity {between}"
    else:
        subject = " and ".join(shortened(name, 36) for name in dict.fromkeys(models[0]))
    subject += ", layer\u00a0by\u00a0layer"
    return " ".join([subject, *(f"({name})" for name in languages if name)])


def _note(
    selection: Selection, curves: Sequence[Curve], averaged: str, *, partial: bool
) -> list[str]:
    def has(name: str) -> bool:
        return any(bool(np.isfinite(getattr(curve, name)).any()) for curve in curves)

    note = sel.statistics_note(
        selection, interval=has("low"), null=has("null"), partial=partial and has("partial")
    )
    note.insert(0, selection.pairing)
    if averaged:
        note.insert(1, f"mean over {averaged}")
    if any(a != b for curve in curves for a, b in curve.layers):
        note.append("layers matched by relative depth")
    return note


def _limits(curves: Sequence[Curve], facts: MeasureFacts) -> tuple[float, float]:
    """From zero, or below where values are, to one, or a little over data that stay low."""
    everything = np.concatenate([part.ravel() for curve in curves for part in curve[4:]])
    low, high = float(np.nanmin(everything)), float(np.nanmax(everything))
    span = max(high, 0.0) - min(low, 0.0) or 1.0
    bottom = 0.0 if low >= 0 else low - 0.06 * span
    if facts.is_similarity and facts.high == 1 and high > 0.6:
        return bottom, max(1.0, high + 0.03)
    return bottom, max(high, 0.0) + 0.12 * span


def null_envelope(
    curves: Sequence[Curve], *, similarity: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """X and the highest (of a distance the lowest) null quantile of several curves, if any."""
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


def draw_layers(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """Curves over the null's band, named at their ends or, in small multiples, by a key."""
    width, count = width_of(size), len(info.panels)
    columns, height = _arrangement(count, size)
    shared = {"sharex": True, "sharey": True}
    key = _key(info, composed=ax is not None)
    axes = fig.frames(info, ax, count, columns, size, height, key=key, **shared)
    ends = "" if size == "single" else " (0 = embedding, 1 = last block)"
    x, y = f"relative depth{ends}" if info.relative else "layer", info.facts.axis_label
    for place, (frame, panel) in enumerate(zip(axes, info.panels, strict=True)):
        if ax is None:
            frame.tick_params(labelbottom=place + columns >= count)
        fig.title_panel(frame, panel.title, width / columns - 0.4)
        _draw_panel(frame, info, panel, size, named=ax is None and count == 1)
    fig.name_axes(axes, x, y, height)
    figure = fig.finish(axes)
    for frame in axes:
        spread_end_labels(frame)
    return figure


def _arrangement(panels: int, size: Size) -> tuple[int, float]:
    """Columns, and the height of all panels in inches."""
    width = width_of(size)
    if panels == 1:
        return 1, {"single": 2.3, "medium": 2.6, "wide": 2.9}[size]
    columns = min(panels, {"single": 2, "medium": 3, "wide": 3 if panels <= 9 else 5}[size])
    rows = math.ceil(panels / columns)
    return columns, rows * (width / columns) * 0.72 + 0.35


def _looks(info: Numbers) -> dict[str, Look]:
    """Label -> look; a curve looks the same in every panel."""
    roles = {curve.label: curve.role for curve in info.curves}
    if len(roles) > MAX_CURVES:  # each has its own panel, so colour says the role and nothing else
        return {label: looks([role])[0] for label, role in roles.items()}
    return dict(zip(roles, looks(list(roles.values())), strict=True))


def _key(info: Numbers, *, composed: bool) -> list[Any]:
    """Curves that no label at their end names, then what bands, thin and grey lines are."""
    from matplotlib.patches import Patch

    small, found = len(info.panels) > 1, _looks(info)
    most = max(len(panel.curves) for panel in info.panels)
    named = most > 1 and (small or composed)
    lines = {label: _line(look) for label, look in found.items()} if named else {}
    look = next(iter(found.values()))
    fill, line = look.fill, look.line  # not grey, which is the null's
    bands = []
    if any(np.isfinite(curve.low).any() for curve in info.curves):
        bands.append(
            Patch(facecolor=fill, alpha=0.3, linewidth=0, label=f"{info.level} % interval")
        )
    has_null = any(np.isfinite(curve.null).any() for curve in info.curves)
    if has_null and (small or composed):
        bands.append(Patch(facecolor=NULL_BAND, edgecolor=FAINT, label="shuffled pairs (null)"))
    more: dict[str, dict[str, Any]] = {}
    if info.show_partial and any(np.isfinite(curve.partial).any() for curve in info.curves):
        more["covariates removed"] = {"color": line, "linewidth": 1.0, "linestyle": (0, (3.5, 2))}
    if any(0 < len(curve.members) <= MAX_MEMBERS for curve in info.curves):
        one = "each language" if info.pairing == "same text" else "each language pair"
        more[one] = {"color": fill, "linewidth": 1.0, "alpha": 0.7}
    if small:
        more["the other panels"] = {"color": FAINT, "linewidth": 1.0}
    return [*fig.key_of(lines), *bands, *fig.key_of(more)]


def _line(look: Look) -> dict[str, Any]:
    return line_marker(look, None, markeredgewidth=0.9)


def _draw_panel(ax: Axes, info: Numbers, panel: Numbers, size: Size, *, named: bool) -> None:
    small = len(info.panels) > 1
    ax.grid(visible=True, axis="y")
    end = info.limits[0 if info.facts.is_similarity else 1]
    envelope = null_envelope(panel.curves, similarity=info.facts.is_similarity)
    if envelope is not None:
        x, edge = envelope
        ax.fill_between(x, edge, end, color=NULL_BAND, linewidth=0, zorder=0.5, label="null")
        ax.plot(x, edge, color=FAINT, linewidth=0.8, zorder=0.6)
    # The other panels' curves, thin and grey, so that each panel can be placed among them.
    for other in info.panels:
        for curve in other.curves if other is not panel else ():
            ax.plot(curve.x, curve.value, color=FAINT, linewidth=0.6, zorder=1.5)
    found = _looks(info)
    for curve in panel.curves:
        _draw_curve(ax, curve, found[curve.label], small=small, partial=info.show_partial)
    ax.set_ylim(*info.limits)
    everything = np.concatenate([curve.x for curve in info.curves])
    span = float(everything.max() - everything.min()) or 1.0
    ax.set_xlim(float(everything.min()) - 0.03 * span, float(everything.max()) + 0.03 * span)
    if info.relative:
        ax.set_xticks([0, 0.5, 1] if small else [0, 0.25, 0.5, 0.75, 1])
    else:
        from matplotlib.ticker import MaxNLocator

        ax.xaxis.set_major_locator(MaxNLocator(4 if small else 8, integer=True))
    if named:
        room = 14 if size == "single" else 24
        labels = [
            EndLabel(float(curve.value[-1]), wrapped(curve.label, room), found[curve.label].text)
            for curve in panel.curves
            if len(panel.curves) > 1
        ]
        if envelope is not None:
            words = wrapped("shuffled pairs", room - 4)
            labels.append(EndLabel((float(envelope[1][-1]) + end) / 2, words, GREY, bold=False))
        write_end_labels(ax, labels)


def _draw_curve(ax: Axes, curve: Curve, look: Look, *, small: bool, partial: bool) -> None:
    if len(curve.members) <= MAX_MEMBERS:
        for member in curve.members:
            ax.plot(curve.x, member, color=look.fill, linewidth=0.5, alpha=0.3, zorder=1.8)
    if np.isfinite(curve.low).any():
        ax.fill_between(curve.x, curve.low, curve.high, color=look.fill, alpha=0.2, linewidth=0)
    if partial and np.isfinite(curve.partial).any():
        ax.plot(curve.x, curve.partial, color=look.line, linewidth=1.0, linestyle=(0, (3.5, 2)))
    options = _line(look) | ({"markersize": 2.6, "linewidth": 1.3} if small else {})
    ax.plot(curve.x, curve.value, label=curve.label, zorder=3, **options)


LAYERS = Figure("layers", "similarity", layers_info, draw_layers)
