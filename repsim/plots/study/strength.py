"""In-language strength: monolingual and mixed models, and the best that merging makes of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from repsim.core.atlas import Atlas
from repsim.core.errors import UsageError
from repsim.core.formatting import percent
from repsim.plots.names import number, short_codes
from repsim.plots.study.outcomes import (
    PRETRAINED_APART,
    SETTINGS,
    Outcome,
    outcomes_of,
    recipe_label,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Strength:
    """One model in one language.

    Attributes:
        name: Model, or recipe of the merge.
        bits: Bits per byte.
        low, high: 95 % interval over documents; NaN for none.
    """

    name: str
    bits: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class StrengthRow:
    """One kind of model: its role, its name, and language -> models of that kind."""

    role: str
    label: str
    models: dict[str, tuple[Strength, ...]]


@dataclasses.dataclass(frozen=True)
class StrengthData:
    """Everything that the figure shows.

    Attributes:
        rows: Kinds of models, from top to bottom.
        floors: Language -> bits per byte of the unigram model.
        codes: Language -> short code.
        title, note: Heading, and pieces of the grey line.
    """

    rows: tuple[StrengthRow, ...]
    floors: dict[str, float]
    codes: dict[str, str]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and the middle of each kind over languages."""
        words = []
        for row in self.rows:
            gaps = [
                self.floors[language] - min(model.bits for model in models)
                for language, models in row.models.items()
            ]
            words.append(f"{row.label}: {number(sum(gaps) / len(gaps))}")
        return (
            "Bits per byte on held-out text of each language (less is better; dashed: a unigram "
            "model). Mean over languages of how far the best model of a kind lies below the "
            "unigram model, in bits per byte (below zero: worse than it): " + "; ".join(words) + "."
        )


def prepare_strength(atlas: Atlas) -> StrengthData:
    """Strength in each language of a study.

    Args:
        atlas: What a study found.

    Raises:
        UsageError: No model of the study's main family has been scored.

    Example:
        >>> from repsim.testing.atlases import planted_atlas
        >>> [row.label for row in prepare_strength(planted_atlas()).rows][:2]
        ['monolingual, from scratch', 'mixed, 0.4M tokens']
    """
    models = [row for row in atlas.models.rows() if row["bits_per_byte"] is not None]
    family = _main_family(models)
    models = [row for row in models if row["model"].startswith(f"{family}/")]
    languages = _languages(models)
    floors = {row["language"]: row["unigram_floor"] for row in models}
    kinds = [*_model_rows(models, languages), *_merge_rows(atlas, family, languages, floors)]
    return StrengthData(
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


def _languages(models: Sequence[dict[str, Any]]) -> list[str]:
    """Languages that a model of the family was trained on alone."""
    spoken = dict.fromkeys(row["language"] for row in models)
    alone = {row["trained_on"] for row in models}
    return [language for language in spoken if language in alone]


def _model_rows(
    models: Sequence[dict[str, Any]], languages: Sequence[str]
) -> Iterator[StrengthRow]:
    alone = [
        row
        for row in models
        if row["role"] == "monolingual" and row["history"] == row["language"]
        and not row["forked_from"]
    ]  # fmt: skip
    yield StrengthRow("monolingual", "monolingual, from scratch", _by_language(alone, languages))
    mixed = [row for row in models if row["role"] == "mixed"]
    for tokens in sorted({row["tokens"] for row in mixed}):
        those = [row for row in mixed if row["tokens"] == tokens]
        label = f"mixed, {tokens / 1e6:.2g}M tokens"
        yield StrengthRow("mixed", label, _by_language(those, languages))


def _by_language(
    rows: Sequence[dict[str, Any]], languages: Sequence[str]
) -> dict[str, tuple[Strength, ...]]:
    found = {
        language: tuple(
            Strength(row["model"], row["bits_per_byte"], *_ends(row))
            for row in rows
            if row["language"] == language
        )
        for language in languages
    }
    return {language: models for language, models in found.items() if models}


def _ends(row: dict[str, Any]) -> tuple[float, float]:
    ends = [math.nan if row[key] is None else float(row[key]) for key in ("ci_low", "ci_high")]
    return ends[0], ends[1]


def _merge_rows(
    atlas: Atlas, family: str, languages: Sequence[str], floors: dict[str, float]
) -> Iterator[StrengthRow]:
    """For each setting the merge that is best in its own worst language."""
    of_family = [
        outcome
        for outcome in outcomes_of(atlas)
        if all(parent.startswith(f"{family}/") for parent in outcome.parents)
        and len(outcome.languages) > 1
    ]
    groups: list[tuple[str, list[Outcome]]] = []
    for setting in PRETRAINED_APART:
        those = [outcome for outcome in of_family if outcome.setting == setting]
        groups.append((f"best merge: {SETTINGS[setting]}", those))
    forks = [outcome for outcome in of_family if outcome.setting == "late-forks"]
    if forks:
        most = max(outcome.fork_fraction for outcome in forks)
        latest = [outcome for outcome in forks if outcome.fork_fraction >= 0.95 * most]
        groups.append((f"best merge: forks at {percent(most)}", latest))
    groups.append(("best merge: fine-tuning doses", [o for o in of_family if o.setting == "doses"]))
    for label, those in groups:
        models: dict[str, tuple[Strength, ...]] = {}
        for language in languages:
            scored = [outcome for outcome in those if language in outcome.bits]
            if scored:
                best = max(scored, key=lambda outcome: outcome.worst)
                models[language] = (_merged(best, language, floors[language]),)
        yield StrengthRow("merged", label, models)


def _merged(outcome: Outcome, language: str, floor: float) -> Strength:
    """Bits per byte of a merge; the interval of its retention, turned back into bits."""
    bits, kept = outcome.bits[language], outcome.retention[language]
    low, high = outcome.ends[language]
    scale = (floor - bits) / kept if kept else math.nan
    name = f"{' + '.join(outcome.parents)}, {recipe_label(*outcome.recipe)}"
    return Strength(name, bits, floor - high * scale, floor - low * scale)


def plot_strength(atlas: Atlas) -> Figure:
    """Draw strength by language and kind of model; see `prepare_strength`."""
    from repsim.plots.drawing.study.strength import draw_strength

    return draw_strength(prepare_strength(atlas))
