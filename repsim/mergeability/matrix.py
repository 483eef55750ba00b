"""Forecasts of every combination of a pool of models, and forecasts as a table."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

from repsim.core.atlas import join_parents
from repsim.core.errors import UsageError
from repsim.core.forecast import MergeForecast
from repsim.core.model_ref import ModelRef
from repsim.core.progress import progress
from repsim.core.table import Table
from repsim.mergeability.features.opened import OpenedModel, OpenedParents
from repsim.mergeability.forecast import (
    Options,
    best_first,
    check_method,
    complete,
    forecast_of,
)
from repsim.mergeability.gates import ModelName
from repsim.mergeability.measuring import measure_parents
from repsim.models.in_memory import named_models
from repsim.models.inspect import ModelLike

#: More combinations than this are not begun.
MOST_COMBINATIONS = 500
#: Bytes of models that stay in memory for later combinations, beside those of the present one.
MOST_KEPT = 2 << 30


def combinations_of(models: Sequence[ModelName], most: int = 2) -> list[tuple[ModelName, ...]]:
    """Every pair of a pool, every triple and so on, in the order of the pool."""
    named = [_named(model) for model in models]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise UsageError(f"'{twice[0]}' is in the pool twice", hint="name each model once")
    if len(models) < 2 or most < 2:
        raise UsageError("a combination takes two models or more")
    sizes = range(2, min(most, len(models)) + 1)
    found = [group for size in sizes for group in itertools.combinations(models, size)]
    if len(found) > MOST_COMBINATIONS:
        raise UsageError(
            f"{len(found)} combinations are more than {MOST_COMBINATIONS}",
            hint="take fewer models, or pairs only",
        )
    return found


def predict_matrix(
    models: Sequence[ModelLike] | Mapping[str, ModelLike],
    method: str = "linear",
    alignment: str = "none",
    *,
    most: int = 2,
    **options: Unpack[Options],
) -> tuple[MergeForecast, ...]:
    """Forecast every pair of a pool, or every combination of up to so many models.

    A model that is part of several combinations is opened once, as far as memory allows.

    Args:
        models: The pool.
        method: Merge method.
        alignment: none, permutation or orthogonal.
        most: Most models in a combination.
        options: As those of `predict_merge`.

    Returns:
        Forecasts in the order of `combinations_of`. Combinations that do not fit are refused one by
        one and do not stop the others.

    Raises:
        UsageError: As in `predict_merge` and `combinations_of`.
        InputError: A model, the corpus or the predictor cannot be read.

    Example:
        >>> from repsim.testing.predictors import planted_predictor
        >>> found = predict_matrix(["zoo:eng-fork", "zoo:deu-fork", "zoo:deu-2"],
        ...                        tiers=("T0",), predictor=planted_predictor())
        >>> [forecast.verdict for forecast in found]
        ['merge', 'do not merge', 'do not merge']
    """
    asked = complete(**options)
    settings, say, models = asked.settings, asked.say, named_models(models)
    groups = combinations_of(models, most)
    for size in sorted({len(group) for group in groups}):
        check_method(method, alignment, size, has_base=asked.base is not None)
    pool = {_named(model): OpenedModel(model, device=settings.device, loading=settings.loading)
            for model in models}  # fmt: skip
    found = []
    with progress("combinations", total=len(groups), unit="merge") as bar:
        for number, group in enumerate(groups, 1):
            names = [_named(model) for model in group]
            if say:
                say("merge", f"{number} of {len(groups)}: {' + '.join(names)}")
            _make_room(pool, names)
            parents = OpenedParents([pool[name] for name in names])
            measured = measure_parents(parents, asked.predictors, settings, base=asked.base)
            found.append(forecast_of(measured, asked.predictors, method, alignment))
            bar.update()
    return tuple(found)


def _make_room(pool: Mapping[str, OpenedModel], needed: Sequence[str]) -> None:
    """Close models that the next combination does not need, until the rest fits."""
    idle = {name: model.held for name, model in pool.items() if name not in needed}
    for name, held in idle.items():
        if held and sum(idle.values()) > MOST_KEPT:
            pool[name].close()
            idle[name] = 0


def _named(model: ModelName) -> str:
    return model.path if isinstance(model, ModelRef) else str(model)


class ForecastTable(Table):
    """One row per forecast and language; what concerns the whole merge is repeated in each."""

    SCHEMA = "repsim/forecasts/1"
    STEM = "forecasts"
    COLUMNS: ClassVar = {
        "parents": ("string", "names joined by ' + '"),
        "k": ("int", "number of parents"),
        "method": ("string", "merge method"),
        "alignment": ("string", "none, permutation or orthogonal"),
        "verdict": (
            "string",
            "merge, align first, merge or align first, keep one parent, do not merge, cannot say",
        ),
        "align_with": ("string", "alignment to merge with, where the verdict names one"),
        "language": ("string", "language; empty where the forecast was refused"),
        "retention": ("float", "point forecast"),
        "low": ("float", "lower end of the 90 % interval"),
        "high": ("float", "upper end"),
        "worst_retention": ("float", "least retention over languages"),
        "p_collapse": ("float", "probability that this is below 0.5"),
        "p_useful": ("float", "probability that the merge beats each parent alone"),
        "gain_kept": ("float", "point forecast of the gain kept over the base, if one was named"),
        "gain_low": ("float", "lower end of its 90 % interval"),
        "gain_high": ("float", "upper end"),
        "refusal": ("string", "why it cannot say"),
        "seconds": ("float", "processor seconds that the features took"),
    }

    @classmethod
    def of(cls, forecasts: Sequence[MergeForecast]) -> ForecastTable:
        """Rows of some forecasts of any combinations and methods, the best first."""
        rows: list[dict[str, Any]] = []
        for found in sorted(forecasts, key=best_first):
            whole = {
                "parents": join_parents(found.models), "k": len(found.models),
                "method": found.method, "alignment": found.alignment, "verdict": found.verdict,
                "align_with": found.align_with, "p_collapse": found.p_collapse,
                "p_useful": found.p_useful, "refusal": found.refusal,
                "worst_retention": found.worst.value if found.worst else None,
                "seconds": sum(found.seconds.values()),
            }  # fmt: skip
            by_language: dict[str, dict[str, Any]] = {}
            for names, kept in (
                (("retention", "low", "high"), found.retention),
                (("gain_kept", "gain_low", "gain_high"), found.gain.kept if found.gain else {}),
            ):
                for language, one in kept.items():
                    numbers = zip(names, (one.value, one.low, one.high), strict=True)
                    by_language.setdefault(language, {}).update(numbers)
            rows += [
                whole | {"language": language, **numbers}
                for language, numbers in by_language.items()
            ] or [whole]  # fmt: skip
        return cls(rows, {"predictors": sorted({found.predictor for found in forecasts})})
