"""Which way to merge some models is forecast to keep most; they are measured once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repsim.core.forecast import MergeForecast
from repsim.mergeability.candidate import MergePredictor
from repsim.mergeability.forecast import PredictorLike, choose_predictor, forecast_of, settings_of
from repsim.mergeability.gates import ModelName
from repsim.mergeability.measuring import Measured, Say, measure_parents


def rank_methods(
    models: Sequence[ModelName],
    *,
    base: str | Path | None = None,
    predictor: PredictorLike = None,
    say: Say | None = None,
    **options: Any,
) -> tuple[MergeForecast, ...]:
    """Forecast every known way to merge some models.

    Args:
        models: Two parents or more.
        base: Base of methods on differences; without one, those are left out.
        predictor: A predictor or its folder; the one that ships if None.
        say: Told of progress.
        **options: Fields of `Settings`: `tiers`, `languages`, `corpus`, `limit`, `seed`, `device`.

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
    measured = measure_parents(models, chosen, settings_of(**options), base=base, say=say)
    return rank_measured(measured, chosen)


def rank_measured(measured: Measured, predictor: MergePredictor) -> tuple[MergeForecast, ...]:
    """As `rank_methods`, of parents that were measured.

    Args:
        measured: The parents.
        predictor: Who is asked.

    Example:
        >>> from repsim.mergeability.measuring import Settings
        >>> from repsim.testing.predictors import planted_predictor
        >>> found = measure_parents(["zoo:eng-1", "zoo:deu-1", "zoo:deu-2"], planted_predictor(),
        ...                         Settings(tiers=("T0",)))
        >>> {forecast.verdict for forecast in rank_measured(found, planted_predictor())}
        {'do not merge'}
    """
    found = [
        forecast_of(measured, predictor, method, alignment)
        for method, alignment in predictor.combinations()
        if _applies(method, len(measured.names), has_base=bool(measured.base))
    ]
    return tuple(sorted(found, key=best_first))


def left_out(models: int, predictor: MergePredictor, *, has_base: bool) -> dict[str, str]:
    """Methods that are not ranked, and why: not known, no base, not so many models.

    Args:
        models: How many are merged.
        predictor: Who is asked.
        has_base: Whether there is a base.

    Returns:
        Reason -> names of methods, joined by commas.

    Example:
        >>> from repsim.testing.predictors import planted_predictor
        >>> left_out(2, planted_predictor(), has_base=False)["a base is needed"]
        'ties'
    """
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
