"""In-language strength: monolingual and mixed models, and the best that merging makes of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from repsim.core.atlas import Atlas
from repsim.core.errors import UsageError
from repsim.core.formatting import number, percent
from repsim.plots.appearance import GREY, Look, Size, looks
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.rows import draw_point, name_rows
from repsim.plots.names import short_codes, wrapped
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.study.axes import SHADE, marker
from repsim.plots.study.outcomes import (
    PRETRAINED_APART,
    SETTINGS,
    Outcome,
    outcomes_of,
    recipe_label,
)


def _caption(info: Numbers) -> str:
    words = []
    for row in info.rows:
        gaps = [info.floors[language] - min(model.bits for model in models)
                for language, models in row.models.items()]  # fmt: skip
        words.append(f"{row.label}: {number(sum(gaps) / len(gaps))}")
    return (
        "Bits per byte on held-out text of each language (less is better; dashed: a unigram "
        "model). Mean over languages of how far the best model of a kind lies below the "
        "unigram model, in bits per byte (below zero: worse than it): " + "; ".join(words) + "."
    )


def strength_info(atlas: Atlas) -> Numbers:
    """Strength in each language of a study."""
    models = [row for row in atlas.models.rows() if row["bits_per_byte"] is not None]
    family = _main_family(models)
    models = [row for row in models if row["model"].startswith(f"{family}/")]
    alone = {row["trained_on"] for row in models}
    languages = [name for name in dict.fromkeys(row["language"] for row in models) if name in alone]
    floors = {row["language"]: row["unigram_floor"] for row in models}
    kinds = [*_model_rows(models, languages), *_merge_rows(atlas, family, languages, floors)]
    return Numbers(
        _caption,
        rows=tuple(row for row in kinds if row.models),
        floors={language: floors[language] for language in languages},
        codes=short_codes(languages),
        title="Strength in each language",
        note=("held-out text", "bars: 95 % interval over documents"),
    )


def _main_family(models: Sequence[dict[str, Any]]) -> str:
    """The family of the mixed models; without one, that of most models."""
    mixed = [row for row in models if row["role"] == "mixed"] or list(models)
    if not mixed:
        raise UsageError("the atlas holds no model that has been scored")
    names = [row["model"].split("/")[0] for row in mixed]
    return str(max(dict.fromkeys(names), key=names.count))


def _model_rows(models: Sequence[dict[str, Any]], languages: Sequence[str]) -> Iterator[Numbers]:
    alone = [row for row in models
             if row["role"] == "monolingual" and row["history"] == row["language"]
             and not row["forked_from"]]  # fmt: skip
    yield Numbers(
        role="monolingual", label="monolingual, from scratch", models=_by_language(alone, languages)
    )
    mixed = [row for row in models if row["role"] == "mixed"]
    for tokens in sorted({row["tokens"] for row in mixed}):
        those = [row for row in mixed if row["tokens"] == tokens]
        label = f"mixed, {tokens / 1e6:.2g}M tokens"
        yield Numbers(role="mixed", label=label, models=_by_language(those, languages))


def _by_language(
    rows: Sequence[dict[str, Any]], languages: Sequence[str]
) -> dict[str, tuple[Numbers, ...]]:
    def ends(row: dict[str, Any]) -> dict[str, float]:
        known = {"low": row["ci_low"], "high": row["ci_high"]}
        return {end: math.nan if value is None else value for end, value in known.items()}

    found = {
        language: tuple(Numbers(name=row["model"], bits=row["bits_per_byte"], **ends(row))
                        for row in rows if row["language"] == language)
        for language in languages
    }  # fmt: skip
    return {language: models for language, models in found.items() if models}


def _merge_rows(
    atlas: Atlas, family: str, languages: Sequence[str], floors: Mapping[str, float]
) -> Iterator[Numbers]:
    """For each setting the merge that is best in its own worst language."""
    own = [o for o in outcomes_of(atlas) if len(o.languages) > 1
           and all(parent.startswith(f"{family}/") for parent in o.parents)]  # fmt: skip
    groups = {SETTINGS[s]: [o for o in own if o.setting == s] for s in PRETRAINED_APART}
    if forks := [o for o in own if o.setting == "late-forks"]:
        most = max(o.fork_fraction for o in forks)
        latest = [o for o in forks if o.fork_fraction >= 0.95 * most]
        groups[f"forks at {percent(most)}"] = latest
    groups["fine-tuned"] = [o for o in own if o.setting == "doses"]
    for label, those in groups.items():
        models = {}
        for language in languages:
            if scored := [o for o in those if language in o.bits]:
                best = max(scored, key=lambda o: o.worst)
                models[language] = (_merged(best, language, floors[language]),)
        yield Numbers(role="merged", label=f"best merge: {label}", models=models)


def _merged(outcome: Outcome, language: str, floor: float) -> Numbers:
    """Bits per byte of a merge; the interval of its retention, turned back into bits."""
    bits, kept = outcome.bits[language], outcome.retention[language]
    low, high = outcome.ends[language]
    scale = (floor - bits) / kept if kept else math.nan
    name = f"{' + '.join(outcome.parents)}, {recipe_label(*outcome.recipe)}"
    return Numbers(name=name, bits=bits, low=floor - high * scale, high=floor - low * scale)


def draw_strength(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """A panel per language, a row per kind of model."""
    roles = list(dict.fromkeys(row.role for row in info.rows))
    found = dict(zip(roles, looks(roles), strict=True))
    count = len(info.floors)
    columns = fig.columns_of(count, size, wide=6, medium=3)
    height = -(-count // columns) * (0.55 + 0.3 * len(info.rows))
    axes = fig.frames(info, ax, count, columns, size, height)
    for place, (frame, language) in enumerate(zip(axes, info.floors, strict=True)):
        _draw_panel(frame, info, language, found, named=place % columns == 0)
    axes[count // 2].set_xlabel("bits per byte (dashed: unigrams)")
    return fig.finish(axes)


def _draw_panel(
    ax: Axes, info: Numbers, language: str, found: dict[str, Look], *, named: bool
) -> None:
    from matplotlib.ticker import MaxNLocator

    floor = info.floors[language]
    ax.axvline(floor, color=GREY, linewidth=0.9, linestyle=(0, (3.5, 2)), zorder=1)
    ends = [floor]
    for place, row in enumerate(info.rows):
        ax.axhline(place, color="#EEF0F2", linewidth=0.8, zorder=0)
        ends += _draw_row(ax, row, language, place, found[row.role])
    low, high = min(ends), max(ends)
    room = 0.16 * (high - low)
    ax.set_xlim(low - room, high + room)
    ax.axvspan(floor, high + room, color=SHADE, linewidth=0, zorder=0)
    name_rows(ax, [wrapped(row.label, 26) if named else "" for row in info.rows], below=0.65)
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.set_title(info.codes[language], loc="left")


def _draw_row(ax: Axes, row: Numbers, language: str, place: int, look: Look) -> list[float]:
    models = row.models.get(language, ())
    if not models:
        return []
    for model in models:
        draw_point(ax, place, model.bits, (model.low, model.high), marker(look))
    best = min(model.bits for model in models)
    ax.annotate(
        number(best), (best, place), xytext=(0, -4.5), textcoords="offset points", fontsize=6.5,
        ha="center", va="top", color=look.text,
    )  # fmt: skip
    ends = [end for model in models for end in (model.low, model.high) if np.isfinite(end)]
    return [*ends, *(model.bits for model in models)]


STRENGTH = Figure("atlas_strength", "atlas", strength_info, draw_strength)
