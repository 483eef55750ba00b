"""T2: what the parents make of the same sentences, inside and at the output."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from repsim.core import Activations, ParallelCorpus, UsageError
from repsim.mergeability.features.base import FeatureValue, TierResult
from repsim.mergeability.features.ladder import (
    HIDDEN_POINT,
    chosen_layers,
    ladder_features,
    parallel_features,
)
from repsim.mergeability.features.outputs import output_features
from repsim.mergeability.features.parents import Parent, ParentLike, load_parents

if TYPE_CHECKING:
    from repsim.measures import Statistics

#: Shuffles of the null: enough for a quantile of their own where a shuffle costs a product, few
#: where it costs a decomposition (their quantile is that of a normal distribution).
SHUFFLES, SHUFFLES_EXPENSIVE = 40, 8
#: Longest window in tokens in which outputs are compared.
CONTEXT = 256


def activation_features(
    models: Sequence[ParentLike],
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
    parents, the mean over pairs and the worst pair.

    Where something is not defined (different widths, different tokenizers, encoders) the values are
    NaN and a note says why.

    Args:
        models: At least two parents.
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

    Returns:
        Tier "T2", its values, and the processor seconds that it took.

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
    parents = load_parents(models, device=device)
    chosen = statistics or Statistics(
        permutations=SHUFFLES, permutations_expensive=SHUFFLES_EXPENSIVE, groups=0, seed=seed
    )
    points = _points(parents)
    activations: list[Activations] = []
    for parent in parents:
        kept = chosen_layers(parent.ref.layers, layers)
        activations += extract(parent.base, sentences, points=points, layers=kept, cache=cache)
    shared = FeatureCache(device=device)
    values = ladder_features(activations, statistics=chosen, cache=shared)
    outputs, own, notes = _outputs(parents, sentences, text, seed)
    values += outputs
    values += parallel_features(activations, own, statistics=chosen, cache=shared)
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
    parents: Sequence[Parent], sentences: ParallelCorpus, text: str | None, seed: int
) -> tuple[list[FeatureValue], dict[str, str], list[str]]:
    """What outputs tell; of encoders, only the language that they state."""
    encoders = [parent.ref.name for parent in parents if parent.lm is None]
    if encoders:
        note = f"'{encoders[0]}' does not predict the next token: the ladder only"
        return [], _stated(parents, sentences), [note]
    limits = [getattr(parent.head.config, "max_position_embeddings", None) for parent in parents]
    context = min([CONTEXT, *(int(limit) for limit in limits if limit)])
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
