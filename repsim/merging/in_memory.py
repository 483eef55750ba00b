"""Merging state dicts that are at hand: for studies of hundreds of combinations, without a disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repsim.core.errors import UsageError
from repsim.merging.base import MergeMethod
from repsim.merging.checkpoint import StateDict, TensorSource, Transformed
from repsim.merging.execute import Job, after_survey, choose_device
from repsim.merging.methods import find_method
from repsim.merging.plan import plan_tensors
from repsim.merging.recipe import Recipe, Setting, Slice, Source
from repsim.merging.settings import read_settings
from repsim.merging.tensors import head_and_embedding, merged_names

if TYPE_CHECKING:
    import torch

    from repsim.merging.base import Gram

Tensors = Mapping[str, "torch.Tensor"]
Transform = Callable[[str, "torch.Tensor"], "torch.Tensor"]


def merge_state_dicts(
    states: Sequence[Tensors],
    method: str | MergeMethod,
    *,
    base: Tensors | None = None,
    parameters: Mapping[str, Any] | None = None,
    config: Any = None,
    transforms: Sequence[Transform | None] | None = None,
    statistics: Sequence[Mapping[str, Gram | torch.Tensor]] | None = None,
    seed: int = 0,
    notes: dict[str, list[str]] | None = None,
    device: str = "cpu",
) -> dict[str, torch.Tensor]:
    """Merge state dicts; the inputs are not changed.

    Args:
        states: One per model.
        method: Merge method or its name.
        base: State dict of the base model, for methods on differences.
        parameters: Values as in a recipe: a number, a gradient over layers, or a list of filters. A
            parameter that models have their own values of (weight, density) takes one such value
            for all, or a sequence with one per model.
        config: Config of the models; tells whether the head is the embedding. Without it, tensors
            that share their memory in every state dict are taken for one.
        transforms: Per model, a function of name and tensor that is applied first, or None.
        statistics: Per model, statistics by tensor for data-aware methods.
        seed: Seed of methods that draw.
        notes: Filled with what methods noted, by tensor.
        device: Where tensors are merged; the result is on the CPU.

    Returns:
        The merged state dict, in the types of the first one (of the base, where there is one). A
        head that is the embedding is the same tensor under both names.

    Raises:
        IncompatibleModelsError: Tensors are missing or have other shapes.
        InputError: NaN or infinity in a tensor.
        UsageError: Unknown parameters, or a method that cannot be applied.

    Example:
        >>> import torch
        >>> a, b = {"norm.weight": torch.zeros(2)}, {"norm.weight": torch.ones(2)}
        >>> merged = merge_state_dicts([a, b], "linear", parameters={"weight": [3, 1]})
        >>> merged["norm.weight"].tolist()
        [0.25, 0.25]
    """
    chosen = find_method(method) if isinstance(method, str) else method
    chosen.check(len(states), has_base=base is not None)
    _check_lengths(len(states), transforms, statistics)
    if chosen.needs and statistics is None:
        raise needs_statistics(chosen)
    recipe = _recipe(chosen, len(states), base is not None, parameters or {})
    given = [*states, *([base] if base is not None else [])]
    names = merged_names(_plain(config, given), dict.fromkeys(given[0], _ANY))
    doubled = sorted(set(given[0]) - set(names))
    sources: dict[str, TensorSource] = {}
    for number, (model, state) in enumerate(zip(recipe.sources, given, strict=True)):
        sources[model] = StateDict(model, state)
        if transforms and number < len(transforms) and (change := transforms[number]):
            sources[model] = Transformed(sources[model], change)
    kept = {
        model: [n for n in source.headers if n not in doubled] for model, source in sources.items()
    }
    plans = plan_tensors(recipe, chosen, sources, kept)
    job = Job(
        chosen, list(sources.values()), seed=seed, device=choose_device(device),
        statistics=dict(enumerate(statistics or ())),
    )  # fmt: skip
    job = after_survey(job, plans)
    merged = {}
    for plan in plans:
        merged[plan.name], context = job.whole(plan)
        if notes is not None and context.notes:
            known = notes.setdefault(plan.name, [])
            known += [note for note in context.notes if note not in known]
    return _in_order(given[0], merged)


def _in_order(like: Tensors, merged: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All names of a state dict; a head that was left out is the embedding."""
    _, embedding = head_and_embedding(like)
    return {name: merged[name] if name in merged else merged[str(embedding)] for name in like}


#: Shapes do not matter where only names are asked for.
_ANY: Any = None


def _plain(config: Any, states: Sequence[Tensors]) -> dict[str, Any]:
    """What is known of ties: by the config, else by shared memory."""
    if config is not None:
        document = dict(config) if isinstance(config, Mapping) else config.to_dict()
        return {"tie_word_embeddings": document.get("tie_word_embeddings")}
    head, embedding = head_and_embedding(states[0])
    shared = head is not None and embedding is not None and all(
        state[head].data_ptr() == state[embedding].data_ptr() for state in states
    )  # fmt: skip
    return {"tie_word_embeddings": shared}


def _recipe(
    method: MergeMethod, models: int, has_base: bool, parameters: Mapping[str, Any]
) -> Recipe:
    """A recipe in which models are called by their numbers, as errors show them."""
    own: list[dict[str, Setting]] = [{} for _ in range(models)]
    common = dict(parameters)
    for name in method.model_defaults:
        value = common.get(name)
        if isinstance(value, list | tuple) and not isinstance(value[0], Mapping):
            if len(value) != models:
                raise UsageError(f"parameter '{name}' has {len(value)} values for {models} models")
            del common[name]
            for settings, item in zip(own, value, strict=True):
                settings.update(read_settings(method, {name: item}, "parameters"))
    sources = tuple(Source(f"model {i + 1}", settings) for i, settings in enumerate(own))
    return Recipe(
        method=method.name,
        slices=(Slice(sources),),
        base_model="base" if has_base else None,
        parameters=read_settings(method, common, "parameters"),
    )


def needs_statistics(method: MergeMethod) -> UsageError:
    """The error for a data-aware method without its data."""
    what = "Gram matrices" if method.needs == "gram" else "Fisher information"
    return UsageError(
        f"method '{method.name}' needs {what} of every model",
        hint=f"collect them with repsim.merging.statistics.collect_{method.needs} and give the "
        "file as `statistics` of each model",
    )


def _check_lengths(models: int, *lists: Sequence[Any] | None) -> None:
    for given in lists:
        if given is not None and len(given) != models:
            raise UsageError(f"{len(given)} transforms or statistics for {models} models")
