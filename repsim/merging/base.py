"""What a merge method declares, and how it is applied to one tensor of several models."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from repsim.core.errors import InputError, UsageError
from repsim.core.registry import Registry
from repsim.merging.arrays import Array, Stream, cast, is_finite, is_torch, kind_of_array, to_numpy
from repsim.merging.parameters import Parameter

if TYPE_CHECKING:
    import torch

Kind = Literal["embedding", "head", "norm", "matrix", "vector"]

#: Keywords that an execution fills in, as opposed to parameters of the method.
_INJECTED = frozenset({"base", "context"})


@dataclasses.dataclass(frozen=True)
class Gram:
    """Second moments of what enters a linear layer, as RegMean needs them.

    Attributes:
        matrix: `[in, in]`, mean over tokens of `x x^T`.
        input_axis: Axis of the weight that its inputs run along: 1 as `torch.nn.Linear` stores it,
            `[out, in]`; 0 as GPT-2's `Conv1D` does.
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
        surveyed: Per model, what the method's `survey` found on the whole models, if it has one.
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
    surveyed: Sequence[float] | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    values: dict[str, float] = dataclasses.field(default_factory=dict)

    def note(self, text: str) -> None:
        """State a degenerate case and its outcome."""
        if text not in self.notes:
            self.notes.append(text)

    def _seed(self, model: int) -> int:
        key = hashlib.sha256(f"{self.seed}/{self.name}/{model}".encode()).digest()
        return int.from_bytes(key[:8], "little") >> 1

    def generator(self, model: int) -> torch.Generator:
        """A random stream that depends on seed, tensor name and model alone."""
        import torch

        return torch.Generator().manual_seed(self._seed(model))

    def uniform(self, model: int) -> Callable[[int], Any]:
        """Draws from [0, 1) in float32: what `torch.rand` gives with `generator`, without torch."""
        seeded = np.random.RandomState(self._seed(model) & 0xFFFF_FFFF)
        numbers = np.random.Generator(np.random.MT19937())
        numbers.bit_generator.state = seeded.get_state(legacy=False)

        def draw(count: int) -> Any:
            bits = numbers.integers(0, 1 << 32, count, dtype=np.uint32)
            bits &= np.uint32(0xFF_FFFF)
            drawn = bits.astype(np.float32)
            drawn *= np.float32(2**-24)
            return drawn

        return draw


@dataclasses.dataclass(frozen=True)
class WholeModels:
    """All tensors that are merged, for a method that must see them before it merges one.

    Attributes:
        models: Names of the models, without the base.
        parameters: Values of the method's parameters, one mapping per tensor.
        entries: Number of entries of all tensors.
        streams: Reads all tensors, one after another, as often as it is called.
    """

    models: Sequence[str]
    parameters: Sequence[Mapping[str, Any]]
    entries: int
    streams: Callable[[], Iterator[Stream]] = dataclasses.field(repr=False)

    def common(self, name: str, model: int | None = None) -> Any:
        """The value that a parameter has for every tensor; it must be one."""
        values = [own[name] if model is None else own[name][model] for own in self.parameters]
        if len(set(values)) > 1:
            whose = "" if model is None else f" of model '{self.models[model]}'"
            raise UsageError(
                f"'{name}'{whose} holds for the whole model, and the recipe gives "
                f"{len(set(values))} values for different tensors",
                hint="give one value",
            )
        return values[0]


@dataclasses.dataclass(frozen=True)
class MergeMethod:
    """Declaration of a merge method; callable on the tensors of one name.

    The properties are tested by `repsim.testing.merge_checks`: what is declared must hold, and what
    is not declared must be seen to break.

    Attributes:
        name: Name in recipes and on the command line (mergekit's, where it has one).
        label: Name in tables and cards.
        function: `f(tensors, *, base, context, **parameters) -> tensor` of torch; or a generator
            `f(stream, *, context, **parameters)` of flat parts, which reads a `Stream` as often as
            it needs, works with numpy and torch alike, and so holds no whole tensor.
        definition: Formula in plain text, `w_i` the tensors, `w_0` the base, `d_i = w_i - w_0`.
        reference: Source of the method.
        parameters: What its function declares, by name.
        min_models: Least number of models besides the base.
        max_models: Largest number, None for any.
        needs_base: Whether deltas to a base are merged.
        takes_base: Whether deltas to a base are merged if there is one.
        needs: Statistics that must be given: "gram", "fisher" or nothing.
        survey: `f(whole_models) -> values`, one number per model, which every tensor's context then
            holds as `surveyed`; None instead of values where parameters ask for no survey.
        elementwise: An entry of the result depends on the same entry of the inputs (and of
            statistics of their shape) alone; plain functions are then given flat parts.
        symmetric: The order of the models does not matter, if their parameters move along.
        idempotent: At default parameters, copies of one model give that model.
        endpoints: A model of weight 1 is given back if all others have weight 0.
        random: The result depends on the seed.
        gpu: Whether it is merged on a GPU if there is one and nobody says where; others keep up
            with the disk on a CPU.

    Example:
        >>> from repsim.merging import METHODS
        >>> ties = METHODS["ties"]
        >>> ties.needs_base, ties.resolve({"density": 0.2})["density"], ties.defaults["lambda"]
        (True, 0.2, 1.0)
    """

    name: str
    label: str
    function: Callable[..., Any] = dataclasses.field(repr=False)
    definition: str
    reference: str
    parameters: Mapping[str, Parameter] = dataclasses.field(default_factory=dict)
    min_models: int = 2
    max_models: int | None = None
    needs_base: bool = False
    takes_base: bool = False
    elementwise: bool = False
    needs: Literal["", "gram", "fisher"] = ""
    survey: Callable[[WholeModels], Sequence[float] | None] | None = None
    symmetric: bool = True
    idempotent: bool = False
    endpoints: bool = False
    random: bool = False
    gpu: bool = False

    @property
    def streams(self) -> bool:
        """Whether its function is a generator of parts."""
        return inspect.isgeneratorfunction(self.function)

    @property
    def defaults(self) -> dict[str, Any]:
        """Parameter -> default, of those common to all models."""
        return {name: p.default for name, p in self.parameters.items() if not p.each}

    @property
    def model_defaults(self) -> dict[str, Any]:
        """Parameter -> default, of those with a value per model."""
        return {name: p.default for name, p in self.parameters.items() if p.each}

    def check(self, models: int, *, has_base: bool) -> None:
        """Refuse (UsageError) a number of models, or a missing base, before anything is read."""
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

    def resolve(
        self, given: Mapping[str, Any], models: int | None = None, tensor: str = ""
    ) -> dict[str, Any]:
        """Defaults overridden by what was given, checked; single numbers spread over the models.

        Raises:
            UsageError: A parameter that the method does not have, or a value it cannot have.
        """
        unknown = sorted(set(given) - set(self.parameters))
        if unknown:
            raise UsageError(
                f"method '{self.name}' has no parameter '{unknown[0]}'",
                hint=f"it has: {', '.join(self.parameters) or 'none'}",
            )
        values = {}
        for name, declared in self.parameters.items():
            value = given.get(name, declared.default)
            several = declared.each and isinstance(value, Sequence) and not isinstance(value, str)
            for item in value if several else [value]:
                declared.check(name, item, tensor)
            if declared.each and models is not None:
                value = [float(item) for item in (value if several else [value] * models)]
                if len(value) != models:
                    what = f"parameter '{name}' has {len(value)} values for {models} models"
                    raise UsageError(what)
            values[name] = value
        return values

    def parts(
        self, stream: Stream, context: TensorContext, values: Mapping[str, Any]
    ) -> Iterator[Array]:
        """Flat parts of the merged tensor, in order; `values` from `resolve`."""
        # Recipes say `lambda`, which Python keeps for itself.
        own = {"lambda_" if name == "lambda" else name: value for name, value in values.items()}
        count = 0
        for part in self._parts(stream, context, own):
            count += len(part)
            yield part
        if count != stream.entries:
            raise self._misshapen(count, stream.entries)

    def _parts(
        self, stream: Stream, context: TensorContext, own: Mapping[str, Any]
    ) -> Iterator[Array]:
        if self.streams:
            yield from self.function(stream, context=context, **own)
        elif self.elementwise:
            for part in stream.parts():
                yield self._plain(part.tensors, part.base, context, own).reshape(-1)
        else:
            tensors = [stream.whole(model) for model in range(stream.models)]
            base = stream.whole(-1) if stream.has_base else None
            merged = self._plain(tensors, base, context, own)
            if tuple(merged.shape) != stream.shape:
                raise self._misshapen(tuple(merged.shape), stream.shape)
            yield merged.reshape(-1)

    def _misshapen(self, found: Any, wanted: Any) -> UsageError:
        what = "entries" if isinstance(found, int) else "shape"
        return UsageError(f"method '{self.name}' gives {what} {found} for a tensor of {wanted}")

    def _plain(
        self, tensors: Sequence[Array], base: Array | None, context: TensorContext, own: Any
    ) -> Array:
        """A plain function is one of torch, whatever the arrays are."""
        if is_torch(tensors[0]):
            return self.function(tensors, base=base, context=context, **own)
        import torch

        given = [torch.from_numpy(np.array(each)) for each in tensors]
        origin = None if base is None else torch.from_numpy(np.array(base))
        return self.function(given, base=origin, context=context, **own).numpy()

    def __call__(
        self,
        tensors: Sequence[Array],
        *,
        base: Array | None = None,
        context: TensorContext | None = None,
        **parameters: Any,
    ) -> Any:
        """Merge the tensors of one name, all of one shape: torch tensors, or numpy arrays.

        Gives a tensor in memory of its own, float32 (float64 if all inputs are): the caller casts
        once.

        Raises:
            InputError: Shapes differ, or a tensor holds NaN, infinity or whole numbers.
            UsageError: Parameters that the method does not have or cannot use.
        """
        self.check(len(tensors), has_base=base is not None)
        where = context or TensorContext()
        values = self.resolve(parameters, len(tensors), where.name)
        given = [*tensors, *([base] if base is not None else [])]
        inputs = [each.detach() if is_torch(each) else np.asarray(each) for each in given]
        check_tensors(inputs, where.name, where.models)
        double = all(kind_of_array(each) == "float64" for each in inputs)
        kind = "float64" if double else "float32"
        shape = tuple(inputs[0].shape)
        if math.prod(shape) == 0:
            where.note(EMPTY_NOTE)
            return cast(inputs[0], kind) + 0
        flat = [each.reshape(-1) for each in inputs]
        stream = Stream(flat, shape, base is not None, lambda part: cast(part, kind))
        return stream.gathered(self.parts(stream, where, values))


EMPTY_NOTE = "the tensor is empty: nothing to merge"


def check_tensors(tensors: Sequence[Array], name: str, models: Sequence[str] = ()) -> None:
    """Refuse tensors whose shapes differ, or that hold NaN, infinity or whole numbers."""
    whole = [
        tensor.dtype for tensor in tensors
        if not (tensor.is_floating_point() if is_torch(tensor) else tensor.dtype.kind == "f")
    ]  # fmt: skip
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
            bad = int((~np.isfinite(to_numpy(cast(tensor, "float64")))).sum())
            model = f"model '{models[index]}'" if index < len(models) else f"model {index + 1}"
            raise not_finite(name, model, bad)


def not_finite(name: str, model: str, count: int) -> InputError:
    """The error for a tensor that holds NaN or infinity."""
    return InputError(
        f"tensor '{name}' of {model} holds {count} values that are NaN or infinite",
        hint="the checkpoint is damaged; merging would spread them over the whole model",
    )


METHODS: Registry[MergeMethod] = Registry(
    "merge method", entry_point_group="repsim.merge_methods", see="repsim methods"
)


def merge_method(
    *, register: bool = True, **declaration: Any
) -> Callable[[Callable[..., Any]], MergeMethod]:
    """Declare `f(tensors, *, base, context, weight=per_model(1.0), ...)` as a merge method.

    Keywords whose default is `per_model(...)` may differ from model to model; the others are
    common; `base` and `context` are filled in by the execution. A generator function declares a
    method that reads a `Stream` in parts; see `MergeMethod.function`.

    Args:
        register: Add it to `METHODS`, so that recipes find it.
        **declaration: Fields of `MergeMethod`; `function` and `parameters` come from the function.

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

    def declare(function: Callable[..., Any]) -> MergeMethod:
        method = MergeMethod(function=function, parameters=_parameters_of(function), **declaration)
        if register:
            METHODS.add(method.name, method)
        return method

    return declare


def _parameters_of(function: Callable[..., Any]) -> dict[str, Parameter]:
    """What the keywords of a function declare."""
    found = {}
    for keyword, declared in inspect.signature(function).parameters.items():
        if declared.kind is inspect.Parameter.KEYWORD_ONLY and keyword not in _INJECTED:
            default = declared.default
            own = default if isinstance(default, Parameter) else Parameter(default)
            found[keyword.rstrip("_")] = own
    return found
