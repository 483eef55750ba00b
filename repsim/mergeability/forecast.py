"""Will a merge keep what its parents know? Said before it is made.

Measure the parents once, ask the predictor about each way to merge them, and put the answer into
words. What is measured is what known merges were measured by, in the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.errors import UsageError, unknown_name
from repsim.core.forecast import MergeForecast
from repsim.mergeability.candidate import ALIGNMENTS, MergePredictor, Prediction
from repsim.mergeability.gates import ModelName, gate_method
from repsim.mergeability.measuring import Measured, Say, Settings, measure_parents
from repsim.mergeability.reasons import evidence_of, reasons_of
from repsim.mergeability.verdict import decide

if TYPE_CHECKING:
    from repsim.core import ParallelCorpus

#: A predictor, the folder of one, or None for the one that ships.
PredictorLike = MergePredictor | str | Path | None


def predict_merge(
    models: Sequence[ModelName],
    method: str = "linear",
    alignment: str = "none",
    *,
    base: str | Path | None = None,
    corpus: str | Path | ParallelCorpus = "bible-heldout",
    languages: Sequence[str] | None = None,
    tiers: Sequence[str] = ("T0", "T1", "T2"),
    predictor: PredictorLike = None,
    seed: int = 0,
    device: str | None = None,
    say: Say | None = None,
    **options: Any,
) -> MergeForecast:
    """Forecast what a merge would keep of each language, without making it.

    What the files alone rule out (different architectures or tokenizers, encoders, sizes or methods
    that no known merge has) is refused before a weight is read; what is measured and turns out to
    lie far from all known merges is refused afterwards. Refused forecasts still carry the evidence.

    Args:
        models: Two parents or more, in the order of merging: folders, "zoo:NAME", hub ids in the
            local cache, `ModelRef`.
        method: Merge method, see `repsim methods`; with its usual parameters.
        alignment: "none", or how the others are brought to the first: "permutation", "orthogonal".
        base: Base of methods on differences.
        corpus: Parallel sentences that activations are compared on.
        languages: Languages to speak of; those that the parents state if None.
        tiers: What is measured, all up to one: "T0" metadata, "T1" weights, "T2" activations, "T3"
            gradients.
        predictor: A predictor or its folder; the one that ships if None.
        seed: Of sentences and shuffles.
        device: Where models run; a GPU if there is one and nothing is said.
        say: Told of progress, a label and a text.
        **options: Other fields of `Settings`: `limit`, `oracle`, `insist`, `cache`, `tokenizer`.

    Returns:
        The forecast; `verdict` is "cannot say" where it was refused, and `refusal` says why.

    Raises:
        UsageError: Fewer than two models; a method, alignment, tier or option that does not exist;
            no language is known.
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
    settings = settings_of(
        corpus=corpus, languages=tuple(languages or ()), tiers=tuple(tiers), seed=seed,
        device=device, **options,
    )  # fmt: skip
    if refused := gate_method(method, alignment, chosen):
        # Nothing that could be measured would help; the metadata is laid out all the same.
        short = dataclasses.replace(settings, oracle=False)
        if not settings.insist:
            short = dataclasses.replace(short, tiers=("T0",))
        measured = measure_parents(models, chosen, short, base=base, say=say)
        return forecast_of(measured, chosen, method, alignment, refusal=refused)
    measured = measure_parents(models, chosen, settings, base=base, say=say)
    return forecast_of(measured, chosen, method, alignment)


def forecast_of(
    measured: Measured,
    predictor: MergePredictor,
    method: str = "linear",
    alignment: str = "none",
    *,
    refusal: str = "",
) -> MergeForecast:
    """Forecast of one way to merge parents that were measured.

    Args:
        measured: The parents.
        predictor: Who is asked.
        method: Merge method.
        alignment: none, permutation or orthogonal.
        refusal: Why nothing can be said, if that is known already.

    Returns:
        The forecast. For a merge of models as they are, the verdict takes into account what the
        same method is forecast to do after alignment.

    Example:
        >>> from repsim.testing.predictors import planted_predictor
        >>> same = measure_parents(["zoo:eng-1", "zoo:eng-2"], planted_predictor(),
        ...                        Settings(tiers=("T0",)))
        >>> found = forecast_of(same, planted_predictor())
        >>> found.verdict, found.align_with
        ('align first', 'orthogonal')
    """
    why = measured.gate.refusal or refusal or gate_method(method, alignment, predictor)
    candidate = measured.candidate(method, alignment)
    prediction = Prediction(refusal=why) if why else predictor.foretell(candidate)
    refused = bool(prediction.refusal)
    aligned = {} if refused or alignment != "none" else _aligned(measured, predictor, method)
    decision = decide(prediction, aligned)
    reasons = (
        evidence_of(candidate, predictor)
        if refused
        else reasons_of(prediction, candidate, predictor)
    )
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
        oracle=_finite(measured.oracle.as_dict()) if measured.oracle else {},
        notes=measured.notes,
    )


def _aligned(measured: Measured, predictor: MergePredictor, method: str) -> dict[str, Prediction]:
    """What the same method is forecast to do after each alignment that is known of it."""
    known = predictor.combinations()
    return {
        alignment: predictor.foretell(measured.candidate(method, alignment))
        for alignment in ALIGNMENTS[1:]
        if (method, alignment) in known
    }


def choose_predictor(predictor: PredictorLike) -> MergePredictor:
    """The predictor that is meant.

    Args:
        predictor: One, the folder of one, or None for the one that ships.

    Raises:
        InputError: There is no predictor in the folder.

    Example:
        >>> from repsim.testing.predictors import planted_predictor
        >>> choose_predictor(planted_predictor()).identity
        'planted'
    """
    if predictor is not None and not isinstance(predictor, str | Path):
        return predictor
    from repsim.mergeability.predictor import Predictor, shipped_predictor

    return shipped_predictor() if predictor is None else Predictor.load(predictor)


def check_method(method: str, alignment: str, models: int, *, has_base: bool) -> None:
    """Refuse what `repsim merge` would refuse too, before anything is read.

    Args:
        method: Merge method.
        alignment: none, permutation or orthogonal.
        models: Number of parents.
        has_base: Whether there is a base.

    Raises:
        UsageError: There is no such method or alignment, or the method does not take that many
            models, or needs a base.

    Example:
        >>> check_method("slerp", "none", 3, has_base=False)
        Traceback (most recent call last):
            ...
        repsim.core.errors.UsageError: method 'slerp' needs at least 2 and at most 2 models besides
        a base, 3 given
    """
    from repsim.merging.methods import find_method

    if alignment not in ALIGNMENTS:
        raise unknown_name("alignment", alignment, ALIGNMENTS)
    if models < 2:
        raise UsageError("a forecast is of a merge: name two models or more")
    find_method(method).check(models, has_base=has_base)


def settings_of(**values: Any) -> Settings:
    """Settings, with the nearest known name for one that does not exist.

    Raises:
        UsageError: An option that does not exist, or tiers that cannot stand alone.

    Example:
        >>> settings_of(tiers=["T0"], limit=50).tiers
        ('T0',)
    """
    known = [field.name for field in dataclasses.fields(Settings)]
    for name in values:
        if name not in known:
            raise unknown_name("option of a forecast", name, known)
    for name in ("tiers", "languages"):
        if name in values:
            values[name] = tuple(values[name])
    return Settings(**values)


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value == value}
