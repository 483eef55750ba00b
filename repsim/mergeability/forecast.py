"""Will a merge keep what its parents know? Said before it is made.

Measure the parents once, in the way in which known merges were measured; ask the predictor about
each way to merge them; put the answer into words.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, cast

from repsim.core.errors import UsageError, unknown_name
from repsim.core.forecast import GainForecast, MergeForecast
from repsim.core.provenance import shown_path
from repsim.mergeability.candidate import (
    ALIGNMENTS,
    GAIN,
    OUTCOMES,
    RETENTION,
    MergePredictor,
    Prediction,
)
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


class Options(TypedDict, total=False):
    """What every verb of forecasts takes by name, explained in `predict_merge`."""

    base: ModelLike | None
    corpus: str | Path | ParallelCorpus
    languages: Sequence[str] | None
    tiers: Sequence[str]
    predictor: PredictorLike | Sequence[PredictorLike]
    limit: int
    text: str
    tokenizer: Literal["same", "map"]
    insist: bool
    seed: int
    device: str | None
    loading: Mapping[str, Any] | None
    cache: str | Path | None
    say: Say | None


@dataclasses.dataclass(frozen=True)
class Asked:
    """Options that are complete."""

    predictors: Mapping[str, MergePredictor]
    settings: Settings
    base: ModelName | None
    say: Say | None


def complete(
    *, base: ModelLike | None = None, predictor: PredictorLike | Sequence[PredictorLike] = None,
    say: Say | None = None, **how: Any,
) -> Asked:  # fmt: skip
    """Options with what is usual where nothing was said; predictors and base are looked up."""
    cache, tiers = how.get("cache"), tuple(how.get("tiers", Settings.tiers))
    how |= {"languages": tuple(how.get("languages") or ()), "tiers": tiers}
    settings = Settings(**how | {"cache": Path(cache) if cache else None})
    found = None if base is None else named_models([base])[0]
    return Asked(choose_predictors(predictor, gain=base is not None), settings, found, say)


def predict_merge(
    models: Sequence[ModelLike] | Mapping[str, ModelLike],
    method: str = "linear",
    alignment: str = "none",
    *,
    parameters: Mapping[str, Sequence[float]] | None = None,
    **options: Unpack[Options],
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
        base: What the parents were trained from: base of methods on differences, and of the gain,
            which is then forecast beside retention. Refused where weights show that it is not the
            nearest common ancestor of the parents.
        parameters: Parameter of the method -> its value for each model, where it is not the
            default; refused where known merges had others.
        corpus: Parallel sentences that activations are compared on.
        languages: Languages to forecast; those that the parents state if None.
        tiers: What is measured, all up to one: "T0" metadata, "T1" weights, "T2" activations, "T3"
            gradients.
        predictor: A predictor or its folder, or one for each outcome; else those that ship.
        limit: Sentences per language.
        text: Training corpus of unigram floors and gradients.
        tokenizer: "map" accepts tokens in another order, as recipes may.
        insist: Whether to measure where no forecast can come of it.
        seed: Of sentences and shuffles.
        device: Where models run; a GPU if there is one and nothing is said.
        loading: How models are loaded: `dtype`, `device_map`, see `load_model`.
        cache: Folder for activations; `activations` in the cache folder if None.
        say: Told of progress, a label and a text.

    Returns:
        The forecast; `verdict` is "cannot say" where it was refused, and `refusal` says why. With
        a base, `gain` is the forecast of the gain kept, or its refusal.

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
    asked = complete(**options)
    check_method(method, alignment, len(models), has_base=asked.base is not None)
    settings = asked.settings
    if all(gate_method(method, alignment, one, parameters) for one in asked.predictors.values()):
        # Nothing that could be measured would help; the metadata is laid out all the same.
        short = settings.tiers if settings.insist else settings.tiers[:1]
        settings = dataclasses.replace(settings, tiers=short)
    measured = measure_parents(
        named_models(models), asked.predictors, settings, base=asked.base, say=asked.say
    )
    return forecast_of(measured, asked.predictors, method, alignment, parameters)


def rank_methods(
    models: Sequence[ModelLike] | Mapping[str, ModelLike], **options: Unpack[Options]
) -> tuple[MergeForecast, ...]:
    """Forecast every known way to merge some models, which are measured once.

    Args:
        models: Two parents or more, as in `predict_merge`.
        options: As those of `predict_merge`; without a base, methods on differences are left out.

    Returns:
        One forecast per method, set of parameters and alignment among known merges that can be
        applied to so many models: first those whose worst language keeps most, refused ones last.

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
    asked = complete(**options)
    measured = measure_parents(
        named_models(models), asked.predictors, asked.settings, base=asked.base, say=asked.say
    )
    found = [
        forecast_of(
            measured,
            asked.predictors,
            method,
            alignment,
            {name: (value,) * len(models) for name, value in settings.items()},
        )
        for method, alignment, settings in ways(asked.predictors)
        if _applies(method, len(models), has_base=asked.base is not None)
    ]
    return tuple(sorted(found, key=best_first))


def forecast_of(
    measured: Measured, predictors: Mapping[str, MergePredictor], method: str = "linear",
    alignment: str = "none", parameters: Mapping[str, Sequence[float]] | None = None,
) -> MergeForecast:  # fmt: skip
    """Forecast of one way to merge parents; as they are, its alignments count in the verdict."""

    def ask(outcome: str, way: str) -> Prediction:
        if outcome not in predictors:
            return Prediction(refusal="this installation holds no predictor of the gain kept")
        predictor = predictors[outcome]
        why = measured.refusal(method, outcome)
        if why := why or gate_method(method, way, predictor, parameters):
            return Prediction(refusal=why)
        return predictor.answer(measured.candidate(method, way, parameters))

    predictor, prediction = predictors[RETENTION], ask(RETENTION, alignment)
    refused = bool(prediction.refusal)
    others = ALIGNMENTS[1:] if not refused and alignment == "none" else ()
    decision = decide(prediction, {way: ask(RETENTION, way) for way in others}, same=measured.same)
    explain = evidence_of if refused else functools.partial(reasons_of, prediction)
    of_gain = None
    if measured.base:
        gain = ask(GAIN, alignment)
        of_gain = GainForecast(
            shown_path(measured.base), gain.kept, gain.worst, gain.p_collapse, gain.refusal,
            gain.nearest, predictors[GAIN].identity if GAIN in predictors else "",
        )  # fmt: skip
    return MergeForecast(
        models=measured.names,
        method=method,
        alignment=alignment,
        retention=prediction.kept,
        worst=prediction.worst,
        p_collapse=prediction.p_collapse,
        p_useful=prediction.p_useful,
        verdict=decision.verdict,
        refusal=prediction.refusal,
        reasons=explain(measured.candidate(method, alignment, parameters), predictor),
        nearest=prediction.nearest,
        in_domain=not refused,
        tiers=measured.tiers,
        seconds=measured.seconds,
        predictor=predictor.identity,
        evidence=measured.evidence,
        advice=decision.advice,
        align_with=decision.align_with,
        notes=(*measured.notes, *_of_stated(prediction)),
        gain=of_gain,
        parameters={name: tuple(values) for name, values in (parameters or {}).items()},
    )


def _of_stated(prediction: Prediction) -> tuple[str, ...]:
    """What the parents state that counts in a forecast, as a note."""
    if not prediction.stated:
        return ()
    also = " and the history of their training" if "history" in prediction.stated else ""
    return (f"what the parents state counts too: their languages{also}",)


def choose_predictors(
    predictor: PredictorLike | Sequence[PredictorLike] = None, *, gain: bool = False
) -> dict[str, MergePredictor]:
    """Outcome -> its predictor: those that are named, else the ones that ship.

    `gain`: whether there is a base, so that the gain kept is forecast as well.
    """
    from repsim.mergeability.predictor import (
        PREDICTOR_FILE,
        Predictor,
        shipped_folder,
        shipped_predictor,
    )

    several = isinstance(predictor, Sequence) and not isinstance(predictor, str)
    named = cast("Sequence[PredictorLike]", predictor if several else [predictor])
    found: dict[str, MergePredictor] = {}
    for one in named:
        if one is not None:
            loaded = Predictor.load(one) if isinstance(one, str | Path) else one
            if loaded.outcome in found:
                raise UsageError(f"two predictors of {loaded.outcome} are named")
            found[loaded.outcome] = loaded
    if GAIN in found and not gain:
        raise UsageError(
            f"{found[GAIN].identity} forecasts the gain kept over a base, and none is given",
            hint="name what the parents were trained from: --base MODEL",
        )
    for outcome in OUTCOMES[: 1 + gain]:
        folder = shipped_folder(outcome)
        if outcome == RETENTION or (folder / PREDICTOR_FILE).exists():
            found.setdefault(outcome, shipped_predictor(outcome))
    return found


def ways(
    predictors: Mapping[str, MergePredictor],
) -> list[tuple[str, str, Mapping[str, float]]]:
    """Methods, alignments and parameters of the known merges of any predictor."""
    found = [
        (method, alignment, settings)
        for one in predictors.values()
        for method, alignment in one.combinations()
        for settings in one.known_settings(method, alignment)
    ]
    return [way for number, way in enumerate(found) if way not in found[:number]]


def check_method(method: str, alignment: str, models: int, *, has_base: bool) -> None:
    """Refuse what `repsim merge` would refuse too, before anything is read."""
    from repsim.merging.methods import find_method

    if alignment not in ALIGNMENTS:
        raise unknown_name("alignment", alignment, ALIGNMENTS)
    if models < 2:
        raise UsageError("a forecast is of a merge: name two models or more")
    find_method(method).check(models, has_base=has_base)


def left_out(
    models: int, predictors: Mapping[str, MergePredictor], *, has_base: bool
) -> dict[str, str]:
    """Reason -> methods that are not ranked: not known, no base, not for so many models."""
    from repsim.merging.methods import list_methods

    known = {method for method, *_ in ways(predictors)}
    reasons: dict[str, list[str]] = {}
    for method in list_methods():
        if method.name not in known:
            reasons.setdefault("no known merge was made so", []).append(method.name)
        elif method.needs_base and not has_base:
            reasons.setdefault("a base is needed", []).append(method.name)
        elif not _applies(method.name, models, has_base=has_base):
            reasons.setdefault(f"not for {models} models", []).append(method.name)
    return {why: ", ".join(names) for why, names in reasons.items()}


def best_first(forecast: MergeForecast) -> tuple[bool, float, float]:
    """Key to sort forecasts by: what the worst language keeps, then of the gain; refusals last."""
    least = [forecast.worst, forecast.gain.worst if forecast.gain else None]
    worst, of_gain = (-one.value if one else math.inf for one in least)
    return forecast.worst is None, worst, of_gain


def _applies(method: str, models: int, *, has_base: bool) -> bool:
    from repsim.merging.methods import find_method

    found = find_method(method)
    most = found.max_models is None or models <= found.max_models
    return found.min_models <= models and most and (has_base or not found.needs_base)
