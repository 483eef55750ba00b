"""Which pairs of languages survive, by the origin of the parents."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from repsim.core.atlas import COLLAPSE, Atlas
from repsim.core.formatting import listed, number, percent
from repsim.plots.appearance import Size, width_of
from repsim.plots.colours import ColourScale
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.matrix import align_colour_bar, coloured, draw_matrix, in_words, ink_on
from repsim.plots.names import short_codes
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.study.axes import RETENTION_SCALE, retention_bar, retention_place
from repsim.plots.study.outcomes import (
    LARGE,
    PLAIN,
    Outcome,
    chosen,
    cluster,
    outcomes_of,
    settings_of,
    usual_rate,
)

_WANTED = (*LARGE, "one-language", "data-order")


def _caption(info: Numbers) -> str:
    words = [
        f"{panel.title}: {int(np.sum(panel.best[known] >= COLLAPSE))} of {int(known.sum())}"
        for panel in info.panels
        for known in [np.triu(np.isfinite(panel.best), 1)]
    ]
    return (
        "Retention of the worst language for every pair of languages: below the diagonal the "
        "plain mean, above it the best of all methods and alignments, on it two models of one "
        "language. Pairs of two languages that any recipe keeps above "
        f"{COLLAPSE:g}: {listed(words)}."
    )


def combinations_info(atlas: Atlas) -> Numbers:
    """Collapse by pair of languages, for forks by their share in common, seeds and doses."""
    found = chosen(
        outcomes_of(atlas),
        lambda o: o.k == 2 and o.setting in _WANTED and len(o.languages) <= 2,
        "merge of two models",
    )
    languages = list(dict.fromkeys(
        language for o in found if len(o.languages) == 2 for language in o.languages
    ))  # fmt: skip
    usual = usual_rate(found)
    found = [o for o in found if set(o.languages) <= set(languages) and o.rate == usual]
    codes = short_codes(languages)
    return Numbers(_caption,
        panels=tuple(_panel(title, those, languages) for title, those in _titled(found).items()),
        languages=tuple(codes[language] for language in languages),
        title="Which pairs of languages survive",
        note=("retention of the worst language", "below the diagonal: plain mean",
              "above: best recipe", "bold: survives"),
    )  # fmt: skip


def _titled(found: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Title of a panel -> its merges, in the order of panels."""
    order = [setting for setting in _WANTED if setting in settings_of(found)]
    forks = cluster([o.fork_fraction for o in found if o.arm == "A"])
    doses = cluster([o.apart for o in found if o.setting == "doses"])
    panels: dict[str, list[Outcome]] = {}
    for o in sorted(found, key=lambda o: (order.index(o.setting), o.fork_fraction)):
        if o.setting in ("independent", "one-language"):
            title = "independent weights"
        elif o.setting in ("data-order", "same-init"):
            title = "forks, 0 %"
        elif o.setting == "doses" and math.isfinite(o.apart):
            title = f"fine-tuned, {percent(doses[o.apart])} alone"
        elif o.setting == "doses":
            title = "fine-tuned from one model"
        else:
            title = f"forks, {percent(forks[o.fork_fraction])}"
        panels.setdefault(title, []).append(o)
    return panels


def _panel(title: str, found: Sequence[Outcome], languages: Sequence[str]) -> Numbers:
    place = {language: i for i, language in enumerate(languages)}
    plain = np.full((len(languages), len(languages)), np.nan)
    best = plain.copy()
    for outcome in found:
        a, b = (place[language] for language in (outcome.languages * 2)[:2])
        for i, j in {(a, b), (b, a)}:
            if outcome.recipe == PLAIN:
                plain[i, j] = np.fmax(plain[i, j], outcome.worst)
            best[i, j] = np.fmax(best[i, j], outcome.worst)
    return Numbers(title=title, plain=plain, best=best)


def draw_combinations(
    info: Numbers, *, ax: Where = None, size: Size = "wide", cmap: str | None = None
) -> Drawing:
    """A matrix per origin of the parents."""
    count = len(info.panels)
    columns = fig.columns_of(count, size, wide=4)
    side = min((width_of(size) - 1.1) / columns, 2.0)
    axes = fig.frames(info, ax, count, columns, size, -(-count // columns) * (side + 0.25))
    scale = coloured(RETENTION_SCALE, cmap)
    fig.keep_left(axes, columns * side + 1.1)
    image = [
        _draw_panel(frame, panel, info, side, scale)
        for frame, panel in zip(axes, info.panels, strict=True)
    ][-1]
    bar = retention_bar(image, axes)
    figure = fig.finish(axes)
    align_colour_bar(bar, axes)
    return figure


def _draw_panel(ax: Axes, panel: Numbers, info: Numbers, side: float, scale: ColourScale) -> Any:
    below = np.tril(np.ones(panel.plain.shape, dtype=bool), -1)
    values = np.where(below, panel.plain, panel.best)
    said = in_words(values, info.languages, info.languages)
    image = draw_matrix(ax, retention_place(values), scale, said)
    ink = ink_on(retention_place(values), scale)
    count = len(info.languages)
    for i, j in itertools.product(range(count), repeat=2):
        if np.isfinite(values[i, j]):
            text = number(values[i, j], 2 if values[i, j] >= 0 else 1)
            weight = "bold" if values[i, j] >= COLLAPSE else "normal"
            ax.text(
                j, i, text, ha="center", va="center", fontsize=6.0, color=ink[i, j],
                fontweight=weight,
            )  # fmt: skip
    ax.set_xticks(range(count), info.languages)
    ax.set_yticks(range(count), info.languages)
    fig.title_panel(ax, panel.title, side - 0.2)
    return image


COMBINATIONS = Figure("atlas_combinations", "atlas", combinations_info, draw_combinations)
