"""Retention against the share of training in common: where merges begin to survive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from repsim.core.atlas import COLLAPSE, Atlas
from repsim.core.formatting import percent
from repsim.plots.appearance import GREY, INK, MARKERS, Look, Size, darkened
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.labels import place_of
from repsim.plots.names import short_codes
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.study.axes import RETENTION, marker, retention_axis
from repsim.plots.study.crossings import ForkSeries, crossing
from repsim.plots.study.outcomes import (
    PLAIN,
    Outcome,
    chosen,
    cluster,
    outcomes_of,
    pair_label,
    recipe_label,
)

#: The methods of the source paper, as they are: always drawn and named.
HEADLINE = (PLAIN, ("ties", "none"), ("dare_ties", "none"))
#: At most this many recipes are drawn: those, and others that survive from the least share on.
MAX_RECIPES = 6
#: Fractions at which fewer pairs than this were merged count as gaps of those pairs. Medians over
#: pairs leave out those too at which fewer than half of all were merged.
LEAST_PAIRS = 3
#: Colour of one pair among many.
_PAIR = "#8FB4D9"
#: Methods differ in colour, in lightness, in their dashes and in their marker.
_RECIPES: tuple[tuple[str, Any], ...] = (
    (INK, "-"),
    ("#D55E00", (0, (4, 1.5))),
    ("#56B4E9", (0, (1, 1))),
    ("#0072B2", "-"),
    ("#E69F00", (0, (5, 1.5, 1, 1.5))),
    ("#CC79A7", (0, (2, 1))),
)


def _caption(info: Numbers) -> str:
    told = {recipe_label(*recipe) for recipe in HEADLINE}
    words = "; ".join(f"{one.recipe}: {one.words()}"
                      for one in info.crossings if one.recipe in told)  # fmt: skip
    return (
        "Retention of the worst language of merges of two forks against the share of training "
        "that they had in common (0: the same initial weights and nothing more). Left: plain "
        "mean, a thin line per pair of languages, dotted where others were merged in between; "
        "thick: median of the pairs that were merged at every fraction shown; dashed: forks of "
        "a monolingual trunk. Right: that median by method. Share in common from which on the "
        f"worst language keeps {COLLAPSE:g}, interpolated, median over pairs: {words}."
    )


def forks_info(atlas: Atlas) -> Numbers:
    """Retention by share of training in common."""
    forks = ("same-init", "early-forks", "late-forks")
    everything = outcomes_of(atlas)
    found = chosen(
        everything,
        lambda o: o.arm == "A" and o.setting in forks and o.k == 2,
        "pair of forks of a mixed trunk",
    )
    mono = [o for o in everything if o.setting == "mono-trunk" and o.k == 2 and o.recipe == PLAIN]
    codes = short_codes([language for o in [*found, *mono] for language in o.languages])
    near = cluster([outcome.fork_fraction for outcome in found])
    plain = _by_pair([o for o in found if o.recipe == PLAIN], codes, near)
    usual, core = _common(plain, LEAST_PAIRS), _common(plain, max(LEAST_PAIRS, len(plain) / 2))
    recipes, crossings = [], []
    for recipe in dict.fromkeys(o.recipe for o in found):
        series = _by_pair([o for o in found if o.recipe == recipe], codes, near)
        label = recipe_label(*recipe)
        complete = [one for one in series if set(core.tolist()) <= set(one.fractions.tolist())]
        if complete:
            recipes.append(_median_series(label, complete, core))
        crossings.append(crossing(label, series))
    crossings.sort(key=lambda one: (math.isnan(one.at.value), one.at.value))
    order = [*(recipe_label(*recipe) for recipe in HEADLINE), *(one.recipe for one in crossings)]
    recipes.sort(key=lambda series: order.index(series.label))
    apart = _by_pair(mono, codes, cluster([o.fork_fraction for o in mono]))
    models = len({parent for o in found for parent in o.parents})
    return Numbers(
        _caption,
        pairs=tuple(series for series in plain if len(series.fractions) > 1),
        mono=tuple(series for series in apart if len(series.fractions) > 1),
        recipes=tuple(recipes[:MAX_RECIPES]),
        usual=usual,
        core=core,
        crossings=tuple(crossings),
        title="Where merges begin to survive",
        note=(f"{models} forks", f"{len(found)} merges of two"),
    )


def _by_pair(
    found: Sequence[Outcome], codes: dict[str, str], near: dict[float, float]
) -> list[ForkSeries]:
    """A series per pair of languages; what differs at one fraction is averaged."""
    groups: dict[str, dict[float, list[float]]] = {}
    for outcome in found:
        series = groups.setdefault(pair_label(outcome.languages, codes), {})
        series.setdefault(near[outcome.fork_fraction], []).append(outcome.worst)
    made = []
    for label, series in groups.items():
        fractions = np.array(sorted(series))
        values = np.array([np.mean(series[fraction]) for fraction in fractions.tolist()])
        none = np.full(len(fractions), np.nan)
        made.append(ForkSeries(label, fractions, values, none, none))
    return made


def _common(series: Sequence[ForkSeries], least: float) -> np.ndarray:
    """Fractions at which that many pairs were merged; all of them if none has so many."""
    every = [fraction for one in series for fraction in one.fractions.tolist()]
    often = sorted({f for f in every if every.count(f) >= least})
    return np.array(often or sorted(set(every)))


def _median_series(label: str, series: Sequence[ForkSeries], core: np.ndarray) -> ForkSeries:
    values = np.array([one.values[np.isin(one.fractions, core)] for one in series])
    none = np.full(len(core), np.nan)
    low, high = (values.min(axis=0), values.max(axis=0)) if len(series) > 1 else (none, none)
    return ForkSeries(label, core, np.median(values, axis=0), low, high)


def draw_forks(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """Retention by pair on the left, by recipe on the right."""
    beside = size == "wide"
    axes = fig.frames(info, ax, 2, 2 if beside else 1, size, 3.1 if beside else 5.8)
    everything = [*info.pairs, *info.mono, *info.recipes]
    fractions = np.unique(np.round(np.concatenate([s.fractions for s in everything]), 4))
    ends = [s.values for s in everything]
    for frame in axes:
        retention_axis(frame, np.concatenate(ends), "y")
        _fraction_axis(frame, fractions)
    _draw_pairs(axes[0], info, fractions)
    _draw_recipes(axes[1], info.recipes, fractions)
    core = set(info.core.tolist())
    complete = sum(core <= set(one.fractions.tolist()) for one in info.pairs)
    axes[0].set_title("plain mean, by pair of languages")
    axes[1].set_title(f"median over {complete} pairs, by method")
    axes[0].set_ylabel(RETENTION)
    for frame in axes:
        frame.legend(loc="upper left", fontsize=7, bbox_to_anchor=(0.0, 0.86), borderpad=0.1,
                     handlelength=2.4, labelspacing=0.3)  # fmt: skip
    return fig.finish(axes)


def _fraction_axis(ax: Axes, fractions: np.ndarray) -> None:
    places = place_of(fractions, fractions)
    shown: dict[float, str] = {}
    for place, fraction in zip(places.tolist(), fractions.tolist(), strict=True):
        if not shown or place - list(shown)[-1] > 0.12:
            shown[place] = percent(fraction).replace(" %", "")
    ax.set_xticks(list(shown), list(shown.values()))
    ax.tick_params(axis="x", labelsize=6.5)
    ax.set_xlim(places[0] - 0.12, 0.06)
    ax.set_xlabel("share of training in common, % (log)")


def _draw_pairs(ax: Axes, info: Numbers, fractions: np.ndarray) -> None:
    """A thin line per pair, dotted where other pairs were merged in between, under their median."""
    thin: dict[str, Any] = {"color": _PAIR, "linewidth": 1.0, "zorder": 2}
    for place, one in enumerate(info.pairs):
        places = place_of(one.fractions, fractions)
        for i in range(len(places) - 1):
            between = (info.usual > one.fractions[i]) & (info.usual < one.fractions[i + 1])
            dashes: Any = (0, (1, 2)) if between.any() else "-"
            ax.plot(places[i : i + 2], one.values[i : i + 2], linestyle=dashes, **thin,
                    label="" if place or i else "one pair of languages")  # fmt: skip
        ax.plot(places, one.values, linestyle="", marker="o", markersize=2.2, color=_PAIR, zorder=2)
    for place, one in enumerate(info.mono):
        ax.plot(place_of(one.fractions, fractions), one.values, color=GREY, linewidth=1.0,
                linestyle=(0, (3, 1.5)), marker="v", markersize=3.8, markerfacecolor="white",
                label="" if place else "forks of a monolingual trunk", zorder=2.4)  # fmt: skip
    for one in info.recipes:
        if one.label == recipe_label(*PLAIN):
            ax.plot(place_of(one.fractions, fractions), one.values, color=INK, linewidth=2.2,
                    marker="o", markersize=4.5, zorder=3, label="median")  # fmt: skip


def _draw_recipes(ax: Axes, series: Sequence[ForkSeries], fractions: np.ndarray) -> None:
    for place, one in enumerate(series):
        colour, dashes = _RECIPES[place % len(_RECIPES)]
        look = Look(colour, darkened(colour, 2.0), colour, MARKERS[place % len(MARKERS)], True)
        ax.plot(place_of(one.fractions, fractions), one.values, linestyle=dashes, linewidth=1.4,
                label=one.label, zorder=2.5, **marker(look, 4.4))  # fmt: skip


FORKS = Figure("atlas_forks", "atlas", forks_info, draw_forks)
