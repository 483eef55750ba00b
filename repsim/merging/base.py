"""What a merge method declares, and how it is applied to one tensor.

A method is a function of the same tensor of several models. Everything that an execution needs to
know (how many models, whether there is a base, which parameters there are and which of them may
differ from model to model) is read from the function's own signature, so that a recipe can be
checked before anything is read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from repsim.core.errors import InputError, UsageError
from repsim.core.registry import Registry

if TYPE_CHECKING:
    import torch

Kind = Literal["embedding", "head", "norm", "matrix", "vector"]

#: Keywords that an execution fills in, as opposed to parameters of the method.
INJECTED = frozenset({"base", "context"})


@dataclasses.dataclass(frozen=True)
class PerModel:
    """Marks a parameter that each model may have its own value of.

    Attributes:
        default: Value of a model whose recipe says nothing.
    """

    default: float


def per_model(default: float) -> Any:
    """Default of a parameter that each model may have its own value of.

    The function that declares it receives a list with one number per model.

    Example:
        >>> from repsim.merging.base import MergeMethod, merge_method
        >>> @merge_method(name="sum", label="sum", definition="sum_i a_i w_i", reference="-",
        ...               register=False)
        ... def weighted(tensors, *, base, context, weight=per_model(1.0)):
        ...     return sum(w * tensor for w, tensor in zip(weight, tensors, strict=True))
        >>> weighted.model_defaults
        {'weight': 1.0}
    """
    return PerModel(default)


@dataclasses.dataclass(frozen=True)
class Gram:
    """Second moments of what enters a linear layer, as RegMean needs them.

    Attributes:
        matrix: `[in, in]`, mean over tokens of `x x^T`.
        input_axis: Axis of the weight that its inputs run along: 1 as `torch.nn.Linear` stores it,
            `[out, in]`; 0 as GPT-2's `Conv1D` does.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
        >>> Gram(rows.T @ rows / len(rows)).matrix.tolist()
        [[1.0, 1.0], [1.0, 2.0]]
    """

    matrix: torch.Tensor
    input_axis: Literal[0, 1] = 1


@dataclasses.dataclass
class TensorContext:
    """Which tensor is being merged, and what a method may need beyond the tensors.

    Attributes:
        name: Name of the tensor in the checkpoint.
        kind: What it is; spectral methods leave embeddings and heads alone.
        models: Names of the models, the base last; shown in errors.
        seed: Seed of the merge; each tensor and model draws from a stream of its own.
        statistics: Per model, what a data-aware method weighs this tensor by (`Gram` for RegMean,
            the diagonal Fisher information as a tensor of the same shape), None where there is
            none.
        thresholds: Per model, the whole-model magnitude below which a delta is trimmed.
        notes: Filled by the method: degenerate cases and what came of them.
        values: Filled by the method: numbers that tell how a merge went (`t` and `cosine` of model
            stock, `condition` of RegMean).

    Example:
        >>> context = TensorContext(name="model.norm.weight", kind="norm", models=("en", "de"))
        >>> context.note("zero")
        >>> context.note("zero")
        >>> context.notes
        ['zero']
    """

    name: str = "tensor"
    kind: Kind = "matrix"
    models: Sequence[str] = ()
    seed: int = 0
    statistics: Sequence[Gram | torch.Tensor | None] | None = None
    thresholds: Sequence[float] | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    values: dict[str, float] = dataclasses.field(default_factory=dict)

    def note(self, text: str) -> None:
        """State a degenerate case and its outcome."""
        if text not in self.notes:
            self.notes.append(text)

    def generator(self, model: int) -> torch.Generator:
        """A random stream that depends on seed, tensor name and model alone.

        Order of tensors, sharding, threads and hash seeds do not matter.
        """
        import torch

        key = hashlib.sha256(f"{self.seed}/{self.name}/{model}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)


@dataclasses.dataclass(frozen=True)
class MergeMethod:
    """Declaration of a merge method; callable on the tensors of one name.

    The properties are tested by `repsim.testing.merge_checks`: what is declared must hold, and what
    is not declared must be seen to break.

    Attributes:
        name: Name in recipes and on the command line (mergekit's, where it has one).
        label: Name in tables and cards.
        function: `f(tensors, *, base, context, **parameters) -> tensor`.
        definition: Formula in plain text, `w_i` the tensors, `w_0` the base, `d_i = w_i - w_0`.
        reference: Source of the method.
        min_models: Least number of models besides the base.
        max_models: Largest number, None for any.
        needs_base: Whether deltas to a base are merged.
        takes_base: Whether deltas to a base are merged if there is one.
        needs: Statistics that must be given: "gram", "fisher" or nothing.
        elementwise: An entry of the result depends on the same entry of the inputs alone, so that a
            large tensor may be merged a few rows at a time (with the same rows of statistics that
            have its shape).
        symmetric: The order of the models does not matter, if their parameters move along.
        idempotent: At default parameters, copies of one model give that model.
        endpoints: A model of weight 1 is given back if all others have weight 0.
        random: The result depends on the seed.
        defaults: Parameter -> default, common to all models.
        model_defaults: Parameter -> default, one per model.

    Example:
        >>> from repsim.merging.recipe import find_method
        >>> ties = find_method("ties")
        >>> ties.needs_base, ties.resolve({"density": 0.2})["density"], ties.defaults["lambda"]
        (True, 0.2, 1.0)
    """

    name: str
    label: str
    function: Callable[..., torch.Tensor] = dataclasses.field(repr=False)
    definition: str
    reference: str
    min_models: int = 2
    max_models: int | None = None
    needs_base: bool = False
    takes_base: bool = False
    elementwise: bool = False
    needs: Literal["", "gram", "fisher"] = ""
    symmetric: bool = True
    idempotent: bool = False
    endpoints: bool = False
    random: bool = False
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model_defaults: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def check(self, models: int, *, has_base: bool) -> None:
        """Refuse a number of models, or a missing base, before anything is read.

        Raises:
            UsageError: The method cannot be applied to that.
        """
        if models < self.min_models or (self.max_models and models > self.max_models):
            most = f" and at most {self.max_models}" if self.max_models else ""
            raise UsageError(
                f"method '{self.name}' needs at least {self.min_models}{most} models besides a "
                f"base, {models} given"
            )
        if self.needs_base and not has_base:
            raise UsageError(
                f"method '{self.name}' merges differences to a base model, and none is given",
                hint="name it as base_model in the recipe, or pass --base",
            )

    def resolve(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults overridden by what was given.

        Raises:
            UsageError: A parameter that the method does not have, or a value of another type.
        """
        known = {**self.defaults, **self.model_defaults}
        unknown = sorted(set(parameters) - set(known))
        if unknown:
            raise UsageError(
                f"method '{self.name}' has no parameter '{unknown[0]}'",
                hint=f"it has: {', '.join(known) or 'none'}",
            )
        for name, value in parameters.items():
            if name in self.defaults:
                _check_type(name, value, self.defaults[name])
        return {**known, **parameters}

    def __call__(
        self,
        tensors: Sequence[torch.Tensor],
        *,
        base: torch.Tensor | None = None,
        context: TensorContext | None = None,
        **parameters: Any,
    ) -> torch.Tensor:
        """Merge the tensors of one name.

        Args:
            tensors: One per model, all of one shape.
            base: The base model's tensor, where the method needs one.
            context: Which tensor this is; see `TensorContext`.
            **parameters: The method's own; one that may differ from model to model is a number or
                a sequence with one number per model.

        Returns:
            The merged tensor in memory of its own, float32 (float64 if all inputs are): the caller
            casts once.

        Raises:
            InputError: Shapes differ, or a tensor holds NaN, infinity or whole numbers.
            UsageError: Parameters that the method does not have or cannot use.

        Example:
            >>> import torch
            >>> from repsim.merging.methods.averaging import linear
            >>> linear([torch.zeros(2), torch.ones(2)], weight=[1, 3]).tolist()
            [0.75, 0.75]
        """
        self.check(len(tensors), has_base=base is not None)
        values = self.resolve(parameters)
        for name in self.model_defaults:
            values[name] = per_model_values(name, values[name], len(tensors))
        where = context or TensorContext()
        given = [*tensors, *([base] if base is not None else [])]
        inputs = [tensor.detach() for tensor in given]
        check_tensors(inputs, where.name, where.models)
        precise = _common_type(inputs)
        if tensors[0].numel() == 0:
            where.note("the tensor is empty: nothing to merge")
            return inputs[0].to(precise, copy=True)
        wide = [tensor.to(precise) for tensor in inputs]
        return self.function(
            wide[: len(tensors)],
            base=None if base is None else wide[-1],
            context=where,
            **{_argument(name): value for name, value in values.items()},
        )


def per_model_values(name: str, value: Any, models: int) -> list[float]:
    """One number per model out of a number or a sequence.

    Raises:
        UsageError: The sequence has another length, or holds something else than finite numbers.

    Example:
        >>> per_model_values("weight", 0.5, 2), per_model_values("weight", [1, 3], 2)
        ([0.5, 0.5], [1.0, 3.0])
    """
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    for item in values:
        _check_type(name, item, 1.0)
    if not isinstance(value, Sequence):
        return [float(value)] * models
    if len(values) != models:
        raise UsageError(f"parameter '{name}' has {len(values)} values for {models} models")
    return [float(item) for item in values]


def _check_type(name: str, value: Any, default: Any) -> None:
    """Refuse a value of another type than the default: YAML has many ways to miswrite one."""
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, str):
        fits, wanted = isinstance(value, str), "a word"
    else:
        whole = isinstance(default, int)
        number = isinstance(value, Real) and not isinstance(value, bool)
        fits = number and (isinstance(value, int) if whole else math.isfinite(value))
        wanted = "a whole number" if whole else "a finite number"
    if not fits:
        raise UsageError(f"parameter '{name}' must be {wanted}, got {value!r}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a word that is not among the choices of a parameter.

    Raises:
        UsageError: It is not.

    Example:
        >>> check_choice("scope", "layer", ("tensor", "model"))
        Traceback (most recent call last):
            ...
        repsim.core.errors.UsageError: parameter 'scope' cannot be 'layer' (hint: use one of:
        tensor, model)
    """
    if value not in choices:
        raise UsageError(
            f"parameter '{name}' cannot be '{value}'", hint=f"use one of: {', '.join(choices)}"
        )


def check_tensors(tensors: Sequence[torch.Tensor], name: str, models: Sequence[str] = ()) -> None:
    """Refuse tensors that cannot be merged.

    Args:
        tensors: One per model.
        name: Name of the tensor.
        models: Names of the models, for the message.

    Raises:
        InputError: Shapes differ, or there is NaN, infinity or an integer type.

    Example:
        >>> import torch
        >>> check_tensors([torch.zeros(2), torch.tensor([1.0, float("nan")])], "norm", ["en", "de"])
        Traceback (most recent call last):
            ...
        repsim.core.errors.InputError: tensor 'norm' of model 'de' holds 1 values that are NaN or
        infinite (hint: the checkpoint is damaged; merging would spread them over the whole model)
    """
    whole = [tensor.dtype for tensor in tensors if not tensor.is_floating_point()]
    if whole:
        raise InputError(
            f"tensor '{name}' holds {whole[0]}, and only floating-point numbers can be merged",
            hint="copy it from one model if all agree",
        )
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len(set(shapes)) > 1:
        raise InputError(
            f"tensor '{name}' has different shapes: {', '.join(map(str, shapes))}",
            hint="models must share architecture, width and vocabulary; see: repsim check A B",
        )
    for index, tensor in enumerate(tensors):
        if not is_finite(tensor):
            bad = int((~tensor.isfinite()).sum())
            model = f"model '{models[index]}'" if index < len(models) else f"model {index + 1}"
            raise not_finite(name, model, bad)


def not_finite(name: str, model: str, count: int) -> InputError:
    """The error for a tensor that holds NaN or infinity.

    Args:
        name: Name of the tensor.
        model: Which model's, in words.
        count: How many there are.

    Example:
        >>> not_finite("norm", "model 'de'", 3).what
        "tensor 'norm' of model 'de' holds 3 values that are NaN or infinite"
    """
    return InputError(
        f"tensor '{name}' of {model} holds {count} values that are NaN or infinite",
        hint="the checkpoint is damaged; merging would spread them over the whole model",
    )


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no entry is NaN or infinite.

    One such entry makes the sum NaN or infinite; only a sum that overflowed needs a closer look.

    Example:
        >>> import torch
        >>> is_finite(torch.tensor([1.0, 2.0])), is_finite(torch.tensor([float("inf"), 1.0]))
        (True, False)
        >>> is_finite(torch.full((2,), 3e38))
        True
    """
    return math.isfinite(float(tensor.sum())) or bool(tensor.isfinite().all())


def _common_type(tensors: Sequence[torch.Tensor]) -> torch.dtype:
    """Float64 if all are, else float32: bfloat16 is never added up in bfloat16."""
    import torch

    return torch.float64 if all(t.dtype == torch.float64 for t in tensors) else torch.float32


def _argument(name: str) -> str:
    """Recipes say `lambda`, which Python keeps for itself."""
    return "lambda_" if name == "lambda" else name


METHODS: Registry[MergeMethod] = Registry(
    "merge method", entry_point_group="repsim.merge_methods", see="repsim methods"
)


def merge_method(
    *,
    name: str,
    label: str,
    definition: str,
    reference: str,
    register: bool = True,
    **declaration: Any,
) -> Callable[[Callable[..., torch.Tensor]], MergeMethod]:
    """Declare `f(tensors, *, base, context, weight=per_model(1.0), ...)` as a merge method.

    Keywords whose default is `per_model(...)` may differ from model to model; the others are
    common; `base` and `context` are filled in by the execution.

    Args:
        name: See `MergeMethod`, as for the other fields.
        label: Name for people.
        definition: Formula.
        reference: Source.
        register: Add it to `METHODS`, so that recipes find it.
        **declaration: Further fields of `MergeMethod`.

    Example:
        >>> import torch
        >>> @merge_method(
        ...     name="largest", label="largest", definition="max_i w_i", reference="-",
        ...     register=False, idempotent=True, elementwise=True,
        ... )
        ... def largest(tensors, *, base, context):
        ...     return torch.stack(list(tensors)).amax(0)
        >>> largest([torch.tensor([1.0, 4.0]), torch.tensor([3.0, 2.0])]).tolist()
        [3.0, 4.0]
    """

    def declare(function: Callable[..., torch.Tensor]) -> MergeMethod:
        common, own = _parameters_of(function)
        method = MergeMethod(
            name=name,
            label=label,
            function=function,
            definition=definition,
            reference=reference,
            defaults=common,
            model_defaults=own,
            **declaration,
        )
        if register:
            METHODS.add(name, method)
        return method

    return declare


def _parameters_of(
    function: Callable[..., torch.Tensor],
) -> tuple[dict[str, Any], dict[str, float]]:
    """Defaults of the parameters common to all models, and of those with one value per model."""
    common: dict[str, Any] = {}
    own: dict[str, float] = {}
    for keyword, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or keyword in INJECTED:
            continue
        key = keyword.rstrip("_")
        if isinstance(parameter.default, PerModel):
            own[key] = parameter.default.default
        else:
            common[key] = parameter.default
    return common, own
