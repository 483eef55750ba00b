"""Will a merge keep what its parents know? Said before it is made.

Measure the parents once, in the way in which known merges were measured; ask the predictor about
each way to merge them; put the answer into words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from repsim.core.errors import UsageError, unknown_name
from repsim.core.forecast import MergeForecast
from repsim.mergeability.candidate import ALIGNMENTS, MergePredictor, Prediction
from repsim.mergeability.gates import ModelName, gate_method
from repsim.mergeability.measuring import Measured, Say, Settings, measure_parents
from repsim.mergeability.reasons import evidence_of, reasons_of
from repsim.mergeability.verdict import decide
from repsim.models.in_memory import named_models
from repsim.models.inspect import ModelLike

if TYPE_CHECKING:
    from repsim.core import ParallelCorpus

#: A predictor, the folder of one, or None for the one that ships.
PredictorLike = MergePredictor | str | Path | None


def predict_merge(
    models: Sequence[ModelLike] | Mapping[str, ModelLike],
    method: str = "linear",
    alignment: str = "none",
    *,
    base: ModelLike | None = None,
    parameters: Mapping[str, Sequence[float]] | None = None,
    corpus: str | Path | ParallelCorpus = "bible-heldout",
    languages: Sequence[str] | None = None,
    tiers: Sequence[str] = ("T0", "T1", "T2"),
    predictor: PredictorLike = None,
    limit: int = 200,
    text: str = "bible",
    tokenizer: Literal["same", "map"] = "same",
    oracle: bool = False,
    insist: bool = False,
    seed: int = 0,
    device: str | None = None,
    loading: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    say: Say | None = None,
) -> MergeForecast:
    """Forecast what a merge would keep of each language, without making it.

    What the files alone rule out (different architectures or tokenizers, encoders, sizes or methods
    that no known merge has) is refused before a weight is read; what is measured and turns out to
    lie far from all known merges is refused afterwards. Refused forecasts still carry the evidence.
    Each parent is opened once, whatever is measured of it.

    Args:
        models: Two parents or more, in the order of merging: folders, "zoo:NAME", hub ids in the
            local cache ("org/name@revision"), `ModelRef`, modules of `transformers` as
            `(module, tokenizer)`; in a mapping, by name.
        method: Merge method, see `repsim methods`; with its default parameters.
        alignment: "none", or how the others are brought to the first: "permutation", "orthogonal".
        base: Base of methods on differences: refused where weights show that it is not the nearest
            common ancestor of the parents.
        parameters: Parameter of the method -> its value for each model, where it is not the
            default; refused where known merges had others.
        corpus: Parallel sentences that activations are compared on.
        languages: Languages to forecast; those that the parents state if None.
        tiers: What is measured, all up to one: "T0" metadata, "T1" weights, "T2" activations, "T3"
            gradients.
        predictor: A predictor or its folder; the one that ships if None.
        limit: Sentences per language.
        text: Training corpus of unigram floors and gradients.
        tokenizer: "map" accepts tokens in another order, as recipes may.
        oracle: Whether the plain average is also tried on a few sentences, beside the forecast.
        insist: Whether to measure where no forecast can come of it.
        seed: Of sentences and shuffles.
        device: Where models run; a GPU if there is one and nothing is said.
        loading: How models are loaded: `dtype`, `device_map`, see `load_model`.
        cache: Folder for activations; `activations` in the cache folder if None.
        say: Told of progress, a label and a text.

    Returns:
        The forecast; `verdict` is "cannot say" where it was refused, and `refusal` says why.

    Raises:
        UsageError: Fewer than two models; a method, alignment or tier that does not exist; no
            language is known.
        InputError: A model, the corpus or the predictor cannot be read.

    Example:
        >>> from repsim.testing.predictors import planted_predictor
        >>> found = predict_merge(["zoo:eng-1", "zoo:deu-2"], tiers=["T0"],
        ...                       predictor=planted_predictor())
        >>> found.verdict, found.p_collapse > 0.9, sorted(found.retention)
        ('do not merge', True, ['deu_Latn', 'eng_Latn'])
    """
    chosen = choose_predictor(predictor)
    check_method(method, alignment, len(models), has_base=base is not None)
    settings = Settings(
        tuple(languages or ()), corpus, limit, text, seed, device, Path(cache) if cache else None,
        tuple(tiers), tokenizer, oracle, insist, loading,
    )  # fmt: skip
    if gate_method(method, alignment, chosen, parameters):
        # Nothing that could be measured would help; the metadata is laid out all the same.
        short = settings.tiers if insist else settings.tiers[:1]
        settings = dataclasses.replace(settings, tiers=short, oracle=False)
    measured = measure_parents(
        named_models(models), chosen, settings, base=named_base(base), say=say
    )
    return forecast_of(measured, chosen, method, alignment, parameters)


def rank_methods(
    models: Sequence[ModelLike] | Mapping[str, ModelLike],
    *,
    base: ModelLike | None = None,
    corpus: str | Path | ParallelCorpus = "bible-heldout",
    languages: Sequence[str] | None = None,
    tiers: Sequence[str] = ("T0", "T1", "T2"),
    predictor: PredictorLike = None,
    limit: int = 200,
    text: str = "bible",
    tokenizer: Literal["same", "map"] = "same",
    oracle: bool = False,
    insist: bool = False,
    seed: int = 0,
    device: str | None = None,
    loading: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    say: Say | None = None,
) -> tuple[MergeForecast, ...]:
    """Forecast every known way to merge some models, which are measured once.

    Args:
        models: Two parents or more, as in `predict_merge`.
        base: Base of methods on differences; without one, those are left out.
        corpus: Parallel sentences that activations are compared on.
        languages: Languages to forecast; those that the parents state if None.
        tiers: What is measured, all up to one.
        predictor: A predictor or its folder; the one that ships if None.
        limit: Sentences per language.
        text: Training corpus of unigram floors and gradients.
        tokenizer: "map" accepts tokens in another order, as recipes may.
        oracle: Whether the plain average is also tried on a few sentences.
        insist: Whether to measure where no forecast can come of it.
        seed: Of sentences and shuffles.
        device: Where models run; a GPU if there is one and nothing is said.
        loading: How models are loaded: `dtype`, `device_map`, see `load_model`.
        cache: Folder for activations.
        say: Told of progress.

    Returns:
        One forecast per method and alignment among known merges that can be applied to so many
        models: first those whose worst language keeps most, refused ones last.

    Raises:
        UsageError: As in `predict_merge`.
        InputError: A model, the corpus or the predictor cannot be read.

    Example:
        >>> from repsim.testing.predictors import planted_predictor
        >>> ranked = rank_methods(["zoo:eng-1", "zoo:eng-2"], tiers=("T0",),
        ...                       predictor=planted_predictor())
        >>> [(found.method, found.alignment) for found in ranked][0]
        ('linear', 'orthogonal')
    """
    chosen = choose_predictor(predictor)
    settings = Settings(
        tuple(languages or ()), corpus, limit, text, seed, device, Path(cache) if cache else None,
        tuple(tiers), tokenizer, oracle, insist, loading,
    )  # fmt: skip
    measured = measure_parents(
        named_models(models), chosen, settings, base=named_base(base), say=say
    )
    found = [
        forecast_of(measured, chosen, method, alignment)
        for method, alignment in chosen.combinations()
        if _applies(method, len(models), has_base=base is not None)
    ]
    return tuple(sorted(found, key=best_first))


def forecast_of(
    measured: Measured, predictor: MergePredictor, method: str = "linear", alignment: str = "none",
    parameters: Mapping[str, Sequence[float]] | None = None,
) -> MergeForecast:  # fmt: skip
    """Forecast of one way to merge parents; as they are, its alignments count in the verdict."""
    why = measured.refusal(method) or gate_method(method, alignment, predictor, parameters)
    candidate = measured.candidate(method, alignment)
    prediction = Prediction(refusal=why) if why else predictor.answer(candidate)
    refused = bool(prediction.refusal)
    aligned = {}
    if not refused and alignment == "none":
        aligned = {
            way: predictor.answer(measured.candidate(method, way))
            for way in ALIGNMENTS[1:]
            if (method, way) in predictor.combinations()
        }
    decision = decide(prediction, aligned, same=measured.same)
    reasons = (
        evidence_of(candidate, predictor)
        if refused
        else reasons_of(prediction, candidate, predictor)
    )
    tried = measured.oracle.as_dict() if measured.oracle else {}
    return MergeForecast(
        models=measured.names,
        method=method,
        alignment=alignment,
        retention=prediction.retention,
        worst=prediction.worst,
        p_collapse=prediction.p_collapse,
        p_useful=prediction.p_useful,
        verdict=decision.verdict,
        refusal=prediction.refusal,
        reasons=reasons,
        nearest=prediction.nearest,
        in_domain=not refused,
        tiers=measured.tiers,
        seconds=measured.seconds,
        predictor=predictor.identity,
        evidence=measured.evidence,
        advice=decision.advice,
        align_with=decision.align_with,
        oracle={name: value for name, value in tried.items() if value == value},
        notes=measured.notes,
    )


def named_base(base: ModelLike | None) -> ModelName | None:
    """A base as it is opened by its name; one in memory by a reference."""
    return None if base is None else named_models([base])[0]


def choose_predictor(predictor: PredictorLike) -> MergePredictor:
    """The predictor that is meant: one, the folder of one, or None for the one that ships."""
    if predictor is not None and not isinstance(predictor, str | Path):
        return predictor
    from repsim.mergeability.predictor import Predictor, shipped_predictor

    found = shipped_predictor() if predictor is None else Predictor.load(predictor)
    if found.outcome != "retention":
        raise UsageError(
            f"the predictor '{predictor}' forecasts {found.outcome}, and a verdict is on retention",
            hint="ask it in Python: Predictor.load(DIR).predict(table)",
        )
    return found


def check_method(method: str, alignment: str, models: int, *, has_base: bool) -> None:
    """Refuse what `repsim merge` would refuse too, before anything is read."""
    from repsim.merging.methods import find_method

    if alignment not in ALIGNMENTS:
        raise unknown_name("alignment", alignment, ALIGNMENTS)
    if models < 2:
        raise UsageError("a forecast is of a merge: name two models or more")
    find_method(method).check(models, has_base=has_base)


def left_out(models: int, predictor: MergePredictor, *, has_base: bool) -> dict[str, str]:
    """Reason -> methods that are not ranked: not known, no base, not for so many models."""
    from repsim.merging.methods import list_methods

    known = {method for method, _ in predictor.combinations()}
    reasons: dict[str, list[str]] = {}
    for method in list_methods():
        if method.name not in known:
            reasons.setdefault("no known merge was made so", []).append(method.name)
        elif method.needs_base and not has_base:
            reasons.setdefault("a base is needed", []).append(method.name)
        elif not _applies(method.name, models, has_base=has_base):
            reasons.setdefault(f"not for {models} models", []).append(method.name)
    return {why: ", ".join(names) for why, names in reasons.items()}


def best_first(forecast: MergeForecast) -> tuple[bool, float]:
    """Key to sort forecasts by: the most that the worst language keeps, refusals at the end."""
    return forecast.worst is None, -(forecast.worst.value if forecast.worst else 0.0)


def _applies(method: str, models: int, *, has_base: bool) -> bool:
    from repsim.merging.methods import find_method

    found = find_method(method)
    most = found.max_models is None or models <= found.max_models
    return found.min_models <= models and most and (has_base or not found.needs_base)
