"""A recipe turned into work: what each tensor of the result is made of, and with which values.

Everything that can be refused is refused here, before a tensor is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from repsim.core.errors import IncompatibleModelsError, InputError, UsageError
from repsim.merging.base import Kind, MergeMethod, TensorContext
from repsim.merging.checkpoint import FLOATS, STORED, TensorSource
from repsim.merging.recipe import Recipe, Scalar, Settings, Slice, Source, evaluate
from repsim.merging.tensors import LayerName, count_layers, kind_of, layer_of
from repsim.models.headers import TensorHeader


@dataclasses.dataclass(frozen=True)
class Input:
    """One tensor of one model."""

    source: int
    tensor: str


@dataclasses.dataclass(frozen=True)
class TensorPlan:
    """How one tensor of the result is made."""

    name: str
    header: TensorHeader
    kind: Kind
    inputs: tuple[Input, ...]
    base: Input | None
    parameters: Mapping[str, Any]
    copied: bool

    @property
    def all_inputs(self) -> list[Input]:
        """Tensors that are read: those that are merged, then the base's."""
        return [*self.inputs, *([self.base] if self.base else [])]

    def describe(self) -> list[Any]:
        """What the result depends on, JSON-able."""
        base = dataclasses.astuple(self.base) if self.base else None
        inputs = [dataclasses.astuple(item) for item in self.inputs]
        header = [self.header.dtype, list(self.header.shape)]
        return [self.name, header, inputs, base, dict(sorted(self.parameters.items()))]


def out_of_range(plan: TensorPlan) -> InputError:
    """The error for a merged tensor that its type cannot hold."""
    values = dict(plan.parameters)
    return InputError(
        f"merged tensor '{plan.name}' does not fit into {plan.header.dtype}: it holds NaN or "
        f"infinity (parameters {values})",
        hint="use out_dtype: bfloat16 or float32, or smaller weights",
    )


def plan_tensors(
    recipe: Recipe, method: MergeMethod, sources: Mapping[str, TensorSource],
    names: Mapping[str, Sequence[str]],
) -> list[TensorPlan]:  # fmt: skip
    """How each tensor of the result is made."""
    planner = _Planner(recipe, method, sources, names)
    plans = list(planner.outside_layers()) + list(planner.layers())
    if plans and not any(not plan.copied for plan in plans):
        raise IncompatibleModelsError("the models hold no weights")
    _try_values(method, plans)
    return plans


def _try_values(method: MergeMethod, plans: Sequence[TensorPlan]) -> None:
    """Merge a few made-up numbers with each set of values: what a method refuses shows here."""
    if method.needs:
        return
    tried: set[str] = set()
    for plan in plans:
        axes = len(plan.header.shape)
        key = repr((plan.kind, axes, sorted(plan.parameters.items())))
        if plan.copied or key in tried:
            continue
        tried.add(key)
        numbers = np.random.default_rng(0).normal(size=(len(plan.inputs) + 1, *(4,) * axes))
        *tensors, base = numbers.astype(np.float32)
        surveyed = [0.0] * len(tensors)
        context = TensorContext(name=plan.name, kind=plan.kind, surveyed=surveyed)
        given = {"base": base} if plan.base else {}
        method(tensors, context=context, **given, **plan.parameters)


def result_layers(
    recipe: Recipe, names: Mapping[str, Sequence[str]]
) -> list[tuple[str, int]]:  # fmt: skip
    """For each layer of the result, the model and layer that its first input is."""
    found = []
    for part in recipe.slices:
        first = part.sources[0]
        start, stop = first.layers or (0, max(count_layers(names[first.model]).values(), default=0))
        found += [(first.model, number) for number in range(start, stop)]
    return found


def _by_layer(tensors: Sequence[str]) -> dict[tuple[str, int], set[str]]:
    """Names of the tensors of each layer, without its number."""
    found: dict[tuple[str, int], set[str]] = {}
    for tensor in tensors:
        if layer := layer_of(tensor):
            found.setdefault((layer.stack, layer.number), set()).add(layer.rest)
    return found


class _Planner:
    def __init__(
        self, recipe: Recipe, method: MergeMethod, sources: Mapping[str, TensorSource],
        names: Mapping[str, Sequence[str]],
    ) -> None:  # fmt: skip
        self.recipe = recipe
        self.method = method
        self.names = names
        self.numbers = {model: number for number, model in enumerate(recipe.sources)}
        self.headers = {model: source.headers for model, source in sources.items()}
        self._rests = {model: _by_layer(tensors) for model, tensors in names.items()}
        self.counts = {model: count_layers(names[model]) for model in sources}
        for part in recipe.slices:
            models = [source.model for source in part.sources]
            if twice := [model for model in models if models.count(model) > 1]:
                raise UsageError(f"model '{twice[0]}' is listed twice", hint="raise its weight")
        uses_base = method.needs_base or method.takes_base
        self.base = recipe.base_model if uses_base else None

    def outside_layers(self) -> Iterator[TensorPlan]:
        """Embeddings come from the first slice; norms and heads behind the layers from the last."""
        outside = {
            model: {tensor for tensor in names if layer_of(tensor) is None}
            for model, names in self.names.items()
        }
        self._check_same(outside)
        for part, first in ((self.recipe.slices[0], True), (self.recipe.slices[-1], False)):
            for tensor in self.names[part.sources[0].model]:
                shape = self.headers[part.sources[0].model][tensor].shape
                embedding = kind_of(tensor, len(shape)) == "embedding"
                if layer_of(tensor) is None and embedding == first:
                    yield self._plan(tensor, part, dict.fromkeys(self.headers, tensor), 0.0)

    def layers(self) -> Iterator[TensorPlan]:
        """Layers of the slices, stacked."""
        first = self.recipe.slices[0].sources[0].model
        for stack in self.counts[first]:
            if self.recipe.stacked and len(self.counts[first]) > 1:
                raise UsageError(
                    "layers cannot be stacked in a model with several stacks of layers "
                    f"({', '.join(self.counts[first])})"
                )
            result = 0
            for part in self.recipe.slices:
                starts, length = self._ranges(part, stack)
                for step in range(length):
                    # As mergekit has it: a slice of one layer is at its end.
                    depth = step / (length - 1) if length > 1 else 1.0
                    yield from self._layer(part, stack, starts, step, result, depth)
                    result += 1

    def _ranges(self, part: Slice, stack: str) -> tuple[dict[str, int], int]:
        """First layer of each model, and the common number of layers."""
        starts, lengths = {}, {}
        entries = [(s.model, s.layers) for s in part.sources]
        if self.base is not None:
            entries.append((self.base, part.base_layers or part.sources[0].layers))
        for model, layers in entries:
            count = self.counts[model].get(stack, 0)
            start, stop = layers or (0, count)
            if stop > count:
                raise UsageError(
                    f"layers [{start}, {stop}] are asked for of '{model}', which has {count}",
                    hint="layers are counted from 0; the second number is one after the last",
                )
            starts[model], lengths[model] = start, stop - start
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"'{model}': {length}" for model, length in lengths.items())
            raise UsageError(
                f"models of one slice have different numbers of layers ({listed})",
                hint="give each the same number with layers: [first, one after the last]",
            )
        return starts, next(iter(lengths.values()))

    def _layer(
        self, part: Slice, stack: str, starts: Mapping[str, int], step: int, result: int,
        depth: float,
    ) -> Iterator[TensorPlan]:  # fmt: skip
        first = part.sources[0].model
        self._check_same(
            {
                model: self._rests[model].get((stack, at + step), set())
                for model, at in starts.items()
            }
        )
        for tensor in self.names[first]:
            layer = layer_of(tensor)
            if layer is None or layer.stack != stack or layer.number != starts[first] + step:
                continue
            names = {model: layer.at(start + step) for model, start in starts.items()}
            yield self._plan(LayerName(stack, result, layer.rest).at(result), part, names, depth)

    def _check_same(self, tensors: Mapping[str, set[str]]) -> None:
        """Refuse tensors that one model has and another lacks."""
        models = list(tensors)
        for model in models[1:]:
            for some, other in ((models[0], model), (model, models[0])):
                if lacking := sorted(tensors[some] - tensors[other]):
                    raise IncompatibleModelsError(
                        f"tensor '{lacking[0]}' of '{some}' is missing in '{other}'",
                        hint="a tensor that one model lacks cannot be merged; see: repsim check",
                    )

    def _plan(self, tensor: str, part: Slice, names: Mapping[str, str], depth: float) -> TensorPlan:
        inputs = [Input(self.numbers[s.model], names[s.model]) for s in part.sources]
        base = None if self.base is None else Input(self.numbers[self.base], names[self.base])
        every = [*inputs, *([base] if base else [])]
        headers = [self._header(item) for item in every]
        for header, item in zip(headers, every, strict=True):
            if header.shape != headers[0].shape:
                raise IncompatibleModelsError(
                    f"tensor '{item.tensor}' of '{self.recipe.sources[item.source]}' is "
                    f"{list(header.shape)}, and {list(headers[0].shape)} in "
                    f"'{part.sources[0].model}'",
                    hint="see: repsim check",
                )
        dtype = headers[-1 if base else 0].dtype
        copied = any(header.dtype not in FLOATS for header in headers)
        if self.recipe.out_dtype and not copied:
            dtype = STORED[self.recipe.out_dtype]
        return TensorPlan(
            name=tensor,
            header=TensorHeader(dtype, headers[0].shape),
            kind=kind_of(tensor, len(headers[0].shape)),
            inputs=tuple(inputs),
            base=base,
            parameters=self._parameters(tensor, part, names, depth),
            copied=copied,
        )

    def _header(self, item: Input) -> TensorHeader:
        return self.headers[self.recipe.sources[item.source]][item.tensor]

    def _parameters(
        self, tensor: str, part: Slice, names: Mapping[str, str], depth: float
    ) -> dict[str, Any]:
        own = [part.sources[0].parameters] if len(part.sources) == 1 else []
        common = (*own, part.parameters, self.recipe.parameters)
        found: dict[str, Any] = {
            name: self._value(name, default, common, tensor, depth)
            for name, default in self.method.defaults.items()
        }
        for name, default in self.method.model_defaults.items():
            found[name] = [
                self._value(name, default, self._scopes(source, part), names[source.model], depth)
                for source in part.sources
            ]
        return self.method.resolve(found, len(part.sources), tensor)

    def _scopes(self, source: Source, part: Slice) -> tuple[Settings, ...]:
        return source.parameters, part.parameters, self.recipe.parameters

    def _value(
        self, name: str, default: Any, scopes: Sequence[Settings], tensor: str, depth: float
    ) -> Scalar:
        for scope in scopes:
            if name in scope:
                value = evaluate(scope[name], tensor, depth)
                if value is not None:
                    return value
        if name in self.recipe.required:
            raise UsageError(
                f"the recipe gives no '{name}' for tensor '{tensor}', and mergekit has no default",
                hint=f"give '{name}' to every model, or under parameters",
            )
        found: Scalar = self.recipe.defaults.get(name, default)
        return found
