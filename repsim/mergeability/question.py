"""The merge that a forecast is asked about, and what a recipe says that it does not look at."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from repsim.core.errors import IncompatibleModelsError, InputError, UsageError

if TYPE_CHECKING:
    from repsim.merging.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Question:
    """A merge that might be made, as a recipe or the command line names it."""

    models: tuple[str, ...]  # in the order of merging
    method: str = "linear"
    alignment: str = "none"  # none, permutation or orthogonal
    base: str | None = None  # of methods on differences
    tokenizer: Literal["same", "map"] = "same"
    parameters: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what in the recipe is not considered


def read_question(source: str | Path | Mapping[str, Any]) -> Question:
    """Read a recipe, mergekit's too, as a question; one that stacks layers is refused."""
    from repsim.merging.prepare import check_recipe
    from repsim.merging.reading import read_recipe

    recipe = read_recipe(source)
    if recipe.stacked:
        raise UsageError(
            "the recipe takes some layers of its models and stacks them, which no forecast is of",
            hint="forecasts are of merges of whole models",
        )
    if len(recipe.models) < 2:
        raise UsageError("the recipe merges one model; there is nothing to forecast")
    # Whether the models are there and fit each other is for the forecast to say.
    with contextlib.suppress(InputError, IncompatibleModelsError):
        check_recipe(recipe)
    return Question(
        models=recipe.models,
        method=recipe.method,
        alignment=recipe.align,
        base=recipe.base_model,
        tokenizer="map" if recipe.tokenizer == "map" else "same",
        parameters=_numbers(recipe),
        notes=tuple(_not_considered(recipe)),
    )


def _stated(recipe: Recipe) -> list[Mapping[str, Any]]:
    """Parameters by model, the innermost scope winning."""
    return [
        {**recipe.defaults, **recipe.parameters, **part.parameters, **source.parameters}
        for part in recipe.slices
        for source in part.sources
        if source.model != recipe.base_model
    ]


def _numbers(recipe: Recipe) -> dict[str, tuple[float, ...]]:
    """Parameters that are one number for each model, and whether weights are normalised."""
    from repsim.merging.methods import find_method

    stated, usual = _stated(recipe), find_method(recipe.method).model_defaults
    names = {name for values in stated for name in values}
    every = {name: [values.get(name, usual.get(name)) for values in stated] for name in names}
    return {
        name: tuple(one if isinstance(one, bool) else float(one) for one in values)
        for name, values in every.items()
        if all(isinstance(value, int | float) for value in values)
        and (name == "normalize" or not any(isinstance(value, bool) for value in values))
    }


def _not_considered(recipe: Recipe) -> list[str]:
    """What the forecast does not look at, in words."""
    names = sorted({name for values in _stated(recipe) for name in values} - set(_numbers(recipe)))
    notes = []
    if names:
        notes.append(
            f"not considered: {', '.join(names)}; the forecast is for '{recipe.method}' as known "
            "merges used it"
        )
    others = {
        "the type of the stored weights": recipe.out_dtype,
        "the seed": recipe.seed or None,
        "the chat template": recipe.chat_template,
        "the model whose tokenizer is taken": recipe.tokenizer_model,
        "choices of single tokens": recipe.tokens or None,
        "the padding of the vocabulary": recipe.pad_to_multiple_of,
        "repair": recipe.repair,
        "token weights": recipe.token_weights,
        "fine-tuning of the merge": recipe.then_finetune,
        "statistics": any(s.statistics for part in recipe.slices for s in part.sources) or None,
    }
    given = [what for what, value in others.items() if value is not None]
    if given:
        notes.append(f"not considered: {', '.join(given)}")
    return notes
