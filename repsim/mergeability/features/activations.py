"""T2: what the parents make of the same sentences, inside and at the output.

High similarity that is blind to coordinates (L2) beside low similarity that is not (L0) is a
mismatch of coordinates, which alignment may mend; low L2 is a mismatch of content.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from repsim.core import Activations, ParallelCorpus, UsageError
from repsim.mergeability.features.catalogue import (
    GAPS,
    HIDDEN,
    LADDER,
    SECTIONS,
    across,
    summarised,
    unit_by_unit,
)
from repsim.mergeability.features.opened import ModelLike, OpenedParents, Parent, opened
from repsim.mergeability.features.outputs import OUTPUT_SENTENCES, output_features
from repsim.mergeability.features.spec import FeatureValue, TierResult

if TYPE_CHECKING:
    from repsim.measures import FeatureCache, Statistics, SweepUnit

#: Shuffles of the null: enough for a quantile of their own where a shuffle costs a product, few
#: where it costs a decomposition (their quantile is that of a normal distribution).
SHUFFLES, SHUFFLES_EXPENSIVE = 40, 8
#: Longest window in tokens in which outputs are compared.
CONTEXT = 256
#: Points of the depth that are compared; deeper models are thinned out to so many.
MOST_LAYERS = 13
HIDDEN_POINT = "mlp_hidden"
_CENTRES = {"early": 1 / 6, "middle": 1 / 2, "late": 5 / 6}


def activation_features(
    models: OpenedParents | Sequence[ModelLike],
    *,
    corpus: str | Path | ParallelCorpus = "bible-heldout",
    languages: Sequence[str],
    limit: int | None = 200,
    layers: Literal["auto", "all"] = "auto",
    statistics: Statistics | None = None,
    text: str | None = "bible",
    seed: int = 0,
    device: str | None = None,
    cache: str | Path | None = None,
) -> TierResult:
    """The invariance ladder between parents and their outputs, on sentences all of them read.

    Per language: each rung at matched depth, summarised over the embedding and the early, middle
    and late third of the blocks, from the score calibrated against shuffled sentences; gaps between
    rungs; KL and agreement of next-token distributions; headroom over unigrams. Over languages:
    similarity across translations, and of each parent in its own language. Of more than two
    parents, the mean over pairs and the worst pair. NaN, with a note, where something is not
    defined (different widths, different tokenizers, encoders).

    Args:
        models: At least two parents, or a group that is open.
        corpus: Parallel sentences, see `corpora.load_corpus`.
        languages: Languages that all parents read.
        limit: Sentences, drawn by `seed`; None for all. Only cached activations of the same
            sentences are used again.
        layers: "auto" compares at most 13 points of the depth, "all" every block.
        statistics: Shuffles and covariates; few shuffles if left out.
        text: Training corpus that the unigram floor of the headroom is fitted on; None for none.
        seed: Of sentences and shuffles.
        device: Where models given by name run and measures are computed.
        cache: Folder for activations; `activations` in the cache folder if None.

    Raises:
        UsageError: Fewer than two models, no language, or a setting that is not possible.
        InputError: A model or the corpus cannot be read, or there are too few sentences.
        IncompatibleModelsError: A family that is not known.

    Example:
        >>> import tempfile
        >>> found = activation_features(["zoo:eng-fork", "zoo:deu-fork"], languages=["eng_Latn"],
        ...                             limit=40, text=None, device="cpu", cache=tempfile.mkdtemp())
        >>> values = {v.feature: v.value for v in found.values if v.language == "eng_Latn"}
        >>> values["unit_correlation_middle"] > 0.5, values["identity_match_late"] > 0.9
        (True, True)
    """
    from repsim.activations import extract
    from repsim.corpora import load_corpus
    from repsim.measures import FeatureCache, Statistics

    started = time.process_time()
    if not languages:
        raise UsageError("no language to read", hint="languages=['eng_Latn']")
    if layers not in ("auto", "all"):
        raise UsageError(f"layers='{layers}' is not possible", hint="auto or all")
    sentences = load_corpus(corpus, languages=list(languages), limit=limit, seed=seed)
    chosen = statistics or Statistics(
        permutations=SHUFFLES, permutations_expensive=SHUFFLES_EXPENSIVE, groups=0, seed=seed,
        unit="sentence",  # as in the evidence that the shipped predictor was fitted on
    )  # fmt: skip
    with opened(models, device=device) as group:
        parents, activations = group.loaded, []
        points = _points(parents)
        said = {*sentences.sample(OUTPUT_SENTENCES, seed).ids}
        for parent in parents:
            kept = chosen_layers(parent.ref.layers, layers)
            # Outputs are compared on some of these sentences: one pass is enough for both.
            watch = functools.partial(parent.speaker.listen, said) if parent.lm else None
            activations += extract(
                parent.base, sentences, points=points, layers=kept, cache=cache, watch=watch
            )
        shared = FeatureCache(device=device)
        values = _ladder(activations, chosen, shared)
        outputs, own, notes = _outputs(group, sentences, text, seed)
    values += outputs
    values += _parallel(activations, own, chosen, shared)
    notes = [*_notes(parents, activations, own), *notes]
    return TierResult("T2", tuple(values), time.process_time() - started, tuple(notes))


def _points(parents: Sequence[Parent]) -> tuple[str, ...]:
    """The residual stream, and hidden units where all families let them be read."""
    readable = all(
        HIDDEN_POINT in parent.base.spec.points
        and parent.base.spec.refuses(parent.base.model.config) is None
        for parent in parents
    )
    return ("resid", HIDDEN_POINT) if readable else ("resid",)


def _outputs(
    group: OpenedParents, sentences: ParallelCorpus, text: str | None, seed: int
) -> tuple[list[FeatureValue], dict[str, str], list[str]]:
    """What outputs tell; of encoders, only the language that they state."""
    parents = group.loaded
    encoders = [parent.ref.name for parent in parents if parent.lm is None]
    if encoders:
        note = f"'{encoders[0]}' does not predict the next token: the ladder only"
        return [], _stated(parents, sentences), [note]
    context = group.context(CONTEXT)
    values, own, notes = output_features(parents, sentences, text=text, context=context, seed=seed)
    return values, own or _stated(parents, sentences), notes


def _stated(parents: Sequence[Parent], sentences: ParallelCorpus) -> dict[str, str]:
    """Model -> the one language of the corpus that it states."""
    spoken = {
        parent.ref.name: [code for code in parent.ref.languages if code in sentences.languages]
        for parent in parents
    }
    return {name: codes[0] for name, codes in spoken.items() if len(codes) == 1}


def _notes(
    parents: Sequence[Parent], activations: Sequence[Activations], own: dict[str, str]
) -> list[str]:
    notes = []
    if not any(HIDDEN_POINT in acts.layers for acts in activations):
        notes.append("hidden units cannot be read in all of these families")
    if len({parent.ref.width for parent in parents}) > 1:
        notes.append("different widths: no measure that compares unit with unit")
    unknown = [parent.ref.name for parent in parents if parent.ref.name not in own]
    if unknown:
        notes.append(f"the own language of {', '.join(unknown)} is not known")
    cached = sum(bool(acts.info.get("cached")) for acts in activations)
    if cached:
        notes.append(f"{cached} of {len(activations)} sets of activations were there already")
    return notes


def chosen_layers(depth: int, layers: str) -> list[int] | None:
    """Layers to extract: all of a shallow model, evenly spaced ones of a deep one."""
    if layers == "all" or depth < MOST_LAYERS:
        return None
    return sorted({round(point) for point in np.linspace(0, depth, MOST_LAYERS)})


def by_section(layers: Sequence[int], values: Sequence[float]) -> dict[str, float]:
    """Mean over the embedding and over each third of the blocks."""
    numbers, array = np.asarray(layers), np.asarray(values, dtype=np.float64)
    embed, blocks = array[numbers == 0], numbers > 0
    found = {"embed": float(embed[0]) if len(embed) else math.nan}
    depth = max(int(numbers.max()), 1)
    place, inner = (numbers[blocks] - 0.5) / depth, array[blocks]
    for name, centre in _CENTRES.items():
        away = np.abs(place - centre)
        if len(away) == 0:
            found[name] = math.nan
            continue
        within = away <= 1 / 6 + 1e-9  # a third without a block takes those nearest to its centre
        chosen = within if within.any() else away <= away.min() + 1e-9
        found[name] = float(inner[chosen].mean())
    return found


def _ladder(
    activations: Sequence[Activations], statistics: Statistics, cache: FeatureCache
) -> list[FeatureValue]:
    """The ladder of all pairs of models on the same text, language by language."""
    scores: dict[tuple[str, str, str], list[float]] = {}
    for unit in _same_text(activations, statistics):
        widths = {
            side.array(unit.point, layers[0]).shape[1]
            for side, layers in ((unit.a, unit.layers_a), (unit.b, unit.layers_b))
        }
        kind = "hidden_" if unit.point == HIDDEN_POINT else ""
        for (measure, column), cells in _columns(unit, cache).items():
            name = kind + (measure if column == "calibrated" else f"{measure}_partial")
            if len(widths) > 1 and unit_by_unit(measure):
                cells = dict.fromkeys(cells, math.nan)
            for section, value in by_section(list(cells), list(cells.values())).items():
                if section != "embed" or not kind:
                    scores.setdefault((name, section, unit.a.language), []).append(value)
    values = [
        value
        for (name, section, language), pairs in scores.items()
        for value in summarised(f"{name}_{section}", pairs, language)
    ]
    known = {(value.feature, value.language): value.value for value in values}
    languages = dict.fromkeys(acts.language for acts in activations)
    for gap, section, language in itertools.product(GAPS, SECTIONS, languages):
        more, less, _ = GAPS[gap]
        gained = known[f"{more}_{section}", language] - known[f"{less}_{section}", language]
        values.append(FeatureValue(f"{gap}_{section}", gained, language))
    return values


def _same_text(activations: Sequence[Activations], statistics: Statistics) -> Iterator[SweepUnit]:
    """Pairs at matched depth: all measures, CKA without covariates, and hidden units."""
    from repsim.measures import plan_sweep

    plain = dataclasses.replace(statistics, groups=0, covariates=())
    free = dataclasses.replace(statistics, groups=0, permutations=0)
    jobs: list[tuple[str, Sequence[str], Statistics]] = [("resid", LADDER, plain)]
    if statistics.covariates:
        jobs.append(("resid", ("cka",), free))
    if all(HIDDEN_POINT in acts.layers for acts in activations):
        jobs.append((HIDDEN_POINT, HIDDEN, plain))
    for point, measures, wanted in jobs:
        yield from plan_sweep(
            activations, measures, pairings=("same text",), layers="matched", point=point,
            statistics=wanted,
        )  # fmt: skip


def _columns(unit: SweepUnit, cache: FeatureCache) -> dict[tuple[str, str], dict[int, float]]:
    """(measure, column) -> layer of the shallower side -> value."""
    from repsim.measures import unit_rows

    shallow = "layer_a" if max(unit.layers_a) <= max(unit.layers_b) else "layer_b"
    column = "partial" if unit.statistics.covariates else "calibrated"
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in unit_rows(unit, cache):
        value = row.get(column)
        cells = found.setdefault((row["measure"], column), {})
        cells[row[shallow]] = math.nan if value is None else float(value)
    return found


def _parallel(
    activations: Sequence[Activations],
    own: Mapping[str, str],
    statistics: Statistics,
    cache: FeatureCache,
) -> list[FeatureValue]:
    """Models against each other on translations, at the middle of the depth."""
    from repsim.measures import plan_sweep, unit_rows

    plain = dataclasses.replace(statistics, groups=0, covariates=())
    middles = [_middle(acts) for acts in activations]
    measures = across()
    units = plan_sweep(
        middles, measures, pairings=("same text", "parallel text across models"),
        layers="matched", statistics=plain,
    )  # fmt: skip
    translated: dict[tuple[str, frozenset[str]], list[float]] = {}
    at_home: dict[tuple[str, frozenset[str]], float] = {}
    for unit in units:
        sides = (unit.a, unit.b)
        pair = frozenset(side.model.name for side in sides)
        home = all(own.get(side.model.name) == side.language for side in sides)
        for row in unit_rows(unit, cache):
            value = float(row.get("calibrated", math.nan))
            if unit.a.language != unit.b.language:
                translated.setdefault((row["measure"], pair), []).append(value)
            if home:
                at_home[row["measure"], pair] = value
    names = dict.fromkeys(acts.model.name for acts in activations)
    pairs = [frozenset(pair) for pair in itertools.combinations(names, 2)]
    values = []
    for name in measures:
        over = [float(np.mean(translated.get((name, pair), [math.nan]))) for pair in pairs]
        home_values = [at_home.get((name, pair), math.nan) for pair in pairs]
        values += summarised(f"parallel_{name}", over)
        values += summarised(f"own_{name}", home_values)
    return values


def _middle(acts: Activations) -> Activations:
    """The same activations with the layer nearest to half the depth only."""
    layers = acts.layers["resid"]
    nearest: Any = min(layers, key=lambda layer: abs(layer - max(layers) / 2))
    return dataclasses.replace(acts, layers={"resid": (nearest,)})
