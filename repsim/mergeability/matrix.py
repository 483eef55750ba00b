"""Forecasts of every combination of a pool of models."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

from repsim.core.atlas import join_parents
from repsim.core.errors import UsageError
from repsim.core.forecast import MergeForecast
from repsim.core.model_ref import ModelRef
from repsim.core.progress import progress
from repsim.core.table import Table
from repsim.mergeability.forecast import (
    PredictorLike,
    check_method,
    choose_predictor,
    forecast_of,
    settings_of,
)
from repsim.mergeability.gates import ModelName
from repsim.mergeability.measuring import Say, measure_parents
from repsim.mergeability.ranking import best_first

#: More combinations than this are not begun.
MOST_COMBINATIONS = 500


def combinations_of(models: Sequence[ModelName], most: int = 2) -> list[tuple[ModelName, ...]]:
    """Every pair of a pool, every triple and so on, in the order of the pool.

    Args:
        models: The pool.
        most: Most models in a combination.

    Raises:
        UsageError: Fewer than two models, one of them twice, or more than 500 combinations.

    Example:
        >>> len(combinations_of(["a", "b", "c"])), len(combinations_of(["a", "b", "c"], 3))
        (3, 4)
    """
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
    models: Sequence[ModelName],
    method: str = "linear",
    alignment: str = "none",
    *,
    most: int = 2,
    predictor: PredictorLike = None,
    say: Say | None = None,
    **options: Any,
) -> tuple[MergeForecast, ...]:
    """Forecast every pair of a pool, or every combination of up to so many models.

    Args:
        models: The pool.
        method: Merge method.
        alignment: none, permutation or orthogonal.
        most: Most models in a combination.
        predictor: A predictor or its folder; the one that ships if None.
        say: Told of progress.
        **options: `base`, and fields of `Settings` as in `predict_merge`.

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
        ['merge', 'do not merge', 'align first']
    """
    chosen = choose_predictor(predictor)
    base = options.pop("base", None)
    settings = settings_of(**options)
    groups = combinations_of(models, most)
    for size in sorted({len(group) for group in groups}):
        check_method(method, alignment, size, has_base=base is not None)
    found = []
    with progress("combinations", total=len(groups), unit="merge") as bar:
        for number, group in enumerate(groups, 1):
            if say:
                say("merge", f"{number} of {len(groups)}: {' + '.join(map(_named, group))}")
            measured = measure_parents(group, chosen, settings, base=base)
            found.append(forecast_of(measured, chosen, method, alignment))
            bar.update()
    return tuple(found)


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
        "verdict": ("string", "merge, align first, do not merge, cannot say"),
        "align_with": ("string", "alignment to merge with, where the verdict is 'align first'"),
        "language": ("string", "language; empty where the forecast was refused"),
        "retention": ("float", "point forecast"),
        "low": ("float", "lower end of the 90 % interval"),
        "high": ("float", "upper end"),
        "worst_retention": ("float", "least retention over languages"),
        "p_collapse": ("float", "probability that this is below 0.5"),
        "p_useful": ("float", "probability that the merge beats each parent alone"),
        "refusal": ("string", "why it cannot say"),
        "seconds": ("float", "processor seconds that the features took"),
    }

    @classmethod
    def of(cls, forecasts: Sequence[MergeForecast]) -> ForecastTable:
        """Rows of some forecasts, the best first.

        Args:
            forecasts: Forecasts of any combinations and methods.

        Example:
            >>> len(ForecastTable.of([]))
            0
        """
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
            rows += [
                whole | {"language": language, "retention": kept.value, "low": kept.low,
                         "high": kept.high}
                for language, kept in found.retention.items()
            ] or [whole]  # fmt: skip
        return cls(rows, {"predictors": sorted({found.predictor for found in forecasts})})
