"""The contract kit of merge methods: turns what a method declares about itself into tests.

What is declared must hold, and what is not declared must be seen to break: an execution merges a
tensor in pieces because a method says that it may, and a reader trusts the table of properties.

Example:
    >>> from repsim.merging.methods.averaging import linear
    >>> check_merge_method(linear)
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from repsim.core.errors import InputError, RepsimError, UsageError
from repsim.merging.arrays import Stream
from repsim.merging.base import Gram, MergeMethod, TensorContext
from repsim.merging.parameters import Parameter
from repsim.testing.measure_checks import require

Check = Callable[[MergeMethod], None]

SHAPE = (6, 8)
#: Relative distance in float64 that counts as none: epsilons in denominators are around 1e-8.
TOLERANCE = 1e-6
#: A relative distance that counts as one: far over that, far under any effect on the data used.
CHANGE = 1e-3


def check_merge_method(method: MergeMethod) -> None:
    """Run all checks of a method, registered or not; AssertionError lists all that fail."""
    require(merge_method_checks(method), f"merge method '{method.name}'")


def merge_method_checks(method: MergeMethod) -> list[tuple[str, Callable[[], None]]]:
    """The checks of a method by name, for parametrised tests."""
    return [(name, functools.partial(check, method)) for name, check in CHECKS.items()]


# -- data ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Models:
    """The same tensor of several models, and what a method needs beside it."""

    tensors: tuple[torch.Tensor, ...]
    base: torch.Tensor | None
    statistics: tuple[Gram | torch.Tensor, ...] | None

    def merge(
        self,
        method: MergeMethod,
        parameters: Mapping[str, Any] | None = None,
        *,
        name: str = "w",
        seed: int = 0,
    ) -> torch.Tensor:
        context = TensorContext(name=name, seed=seed, statistics=self.statistics)
        return method(self.tensors, base=self.base, context=context, **(parameters or {}))

    def replaced(self, **fields: Any) -> _Models:
        return dataclasses.replace(self, **fields)

    def to(self, dtype: torch.dtype) -> _Models:
        base = None if self.base is None else self.base.to(dtype)
        return self.replaced(tensors=tuple(x.to(dtype) for x in self.tensors), base=base)

    def in_order(self, order: Sequence[int]) -> _Models:
        statistics = self.statistics and tuple(self.statistics[i] for i in order)
        return self.replaced(tensors=tuple(self.tensors[i] for i in order), statistics=statistics)


def _models(
    method: MergeMethod, count: int | None = None, *, shape: tuple[int, ...] = SHAPE, seed: int = 0,
    unchanged: float = 0.0,
) -> _Models:  # fmt: skip
    """Models around a base, as different from each other as from it but for a share of entries."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=rng, dtype=torch.float64)

    count = count or min(3, method.max_models or 3)
    base = draw(*shape)
    statistics: tuple[Gram | torch.Tensor, ...] | None = None
    if method.needs == "fisher":
        statistics = tuple(draw(*shape).square() for _ in range(count))
    elif method.needs == "gram" and len(shape) == 2:
        inputs = [draw(20, shape[1]) for _ in range(count)]
        statistics = tuple(Gram(x.T @ x / len(x)) for x in inputs)
    return _Models(
        tensors=tuple(
            base + draw(*shape) * (torch.rand(shape, generator=rng) >= unchanged)
            for _ in range(count)
        ),
        base=base if method.needs_base else None,
        statistics=statistics,
    )


def _trials(method: MergeMethod) -> list[dict[str, Any]]:
    """Default parameters, and each common number moved away from its default."""
    numbers = {k: v for k, v in method.defaults.items() if isinstance(v, float) and v}
    return [{}, *({name: 0.6 * value} for name, value in numbers.items())]


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative distance of two tensors."""
    assert a.shape == b.shape, f"a tensor of shape {tuple(b.shape)} becomes {tuple(a.shape)}"
    scale = max(float(b.double().norm()), 1e-12)
    return float((a.double() - b.double()).norm()) / scale


def _hold_or_break(method: MergeMethod, declared: bool, worst: float) -> None:
    if declared:
        assert worst <= TOLERANCE, f"declared, but off by {worst:.2g}"
    else:
        assert worst > CHANGE, f"not declared, but off by {worst:.2g} only"


@contextlib.contextmanager
def _refused(what: str, error: type[RepsimError], naming: str) -> Iterator[None]:
    message = None
    try:
        yield
    except error as raised:
        message = str(raised)
    assert message is not None, f"{what} is not refused"
    assert naming in message, f"{what}: the message does not name '{naming}': {message}"


# -- properties that are declared ----------------------------------------------------------------


def _check_symmetric(method: MergeMethod) -> None:
    if method.max_models == 1:
        return
    models, worst = _models(method), 0.0
    order = list(reversed(range(len(models.tensors))))
    for trial in _trials(method):
        own: dict[str, Any] = {
            k: [v * (1 - 0.2 * i) for i in order] for k, v in method.model_defaults.items()
        }
        moved = {name: [values[i] for i in order] for name, values in own.items()}
        before = models.merge(method, own | trial)
        worst = max(worst, _distance(models.in_order(order).merge(method, moved | trial), before))
    _hold_or_break(method, method.symmetric, worst)


def _check_idempotent(method: MergeMethod) -> None:
    models = _models(method)
    copies = models.replaced(tensors=models.tensors[:1] * len(models.tensors))
    worst = _distance(copies.merge(method), models.tensors[0])
    _hold_or_break(method, method.idempotent, worst)


def _check_endpoints(method: MergeMethod) -> None:
    models, worst = _models(method), 0.0
    count = len(models.tensors)
    ends: list[dict[str, Any]]
    if "weight" in method.model_defaults:
        ends = [{"weight": [float(i == chosen) for i in range(count)]} for chosen in range(count)]
    elif "t" in method.defaults and count > 1:
        ends = [{"t": 0.0}, {"t": 1.0}]
    else:
        assert not method.endpoints, "declared, but no parameter can choose one model"
        return
    for chosen, end in enumerate(ends):
        worst = max(worst, _distance(models.merge(method, end), models.tensors[chosen]))
    _hold_or_break(method, method.endpoints, worst)


def _check_elementwise(method: MergeMethod) -> None:
    """In thirds as in whole; of parameters in turn a hundred times their default as well."""
    numbers = {k: 100 * v for k, v in method.defaults.items() if isinstance(v, float)}
    allowed = {k: v for k, v in numbers.items() if method.parameters[k].covers(v)}
    trials = [{}, *({name: value} for name, value in allowed.items())]
    worst = max(_piecewise(method, trial, share) for trial in trials for share in (0.0, 0.5))
    _hold_or_break(method, method.elementwise, worst)


def _piecewise(method: MergeMethod, trial: dict[str, Any], unchanged: float) -> float:
    models = _models(method, unchanged=unchanged)
    whole = models.merge(method, trial)

    def piece(x: Any, part: int) -> Any:
        return x.flatten().chunk(3)[part] if isinstance(x, torch.Tensor) else None

    pieces = []
    for part in range(3):
        cut = models.replaced(
            tensors=tuple(piece(x, part) for x in models.tensors),
            base=piece(models.base, part),
            statistics=models.statistics and tuple(piece(x, part) for x in models.statistics),
        )
        pieces.append(cut.merge(method, trial))
    return _distance(torch.cat(pieces), whole.flatten())


def _check_base(method: MergeMethod) -> None:
    models = _models(method)
    if method.needs_base:
        with _refused("a missing base", UsageError, method.name):
            models.replaced(base=None).merge(method)
    one, two = (torch.randn(SHAPE, generator=torch.Generator().manual_seed(s)) for s in (7, 8))
    models = _models(method, unchanged=0.5)
    elsewhere = [one.double() if models.base is None else models.base, two.double()]
    one, other = (models.replaced(base=base).merge(method) for base in elsewhere)
    uses = method.needs_base or method.takes_base
    if uses:
        assert _distance(one, other) > CHANGE, "declared to use a base, but any base does the same"
    else:
        assert _distance(one, other) == 0, "not declared to use a base, but it changes the result"


def _check_random(method: MergeMethod) -> None:
    models = _models(method)
    first = models.merge(method)
    assert torch.equal(first, models.merge(method)), "the same call gives something else"
    models.merge(method, name="another tensor")
    assert torch.equal(first, models.merge(method)), "what was merged before changes the result"
    for what, changed in (
        ("seed", models.merge(method, seed=1)),
        ("tensor's name", models.merge(method, name="v")),
    ):
        same = torch.equal(first, changed)
        if method.random:
            assert not same, f"declared random, but the {what} does not matter"
        else:
            assert same, f"not declared random, but the {what} matters"


# -- what every method must do -------------------------------------------------------------------


def _check_description(method: MergeMethod) -> None:
    for field in ("name", "label", "definition", "reference"):
        assert getattr(method, field).strip(), f"'{field}' is empty"


def _check_parameters(method: MergeMethod) -> None:
    models = _models(method)
    count = len(models.tensors)
    with _refused("an unknown parameter", UsageError, "no_such_thing"):
        models.merge(method, {"no_such_thing": 1})
    for name, default in method.model_defaults.items():
        one, each = (models.merge(method, {name: v}) for v in (default, [default] * count))
        assert torch.equal(one, each), f"'{name}' as a number is not the same as a list of it"
        with _refused(f"one value too many of '{name}'", UsageError, name):
            models.merge(method, {name: [default] * (count + 1)})
    for name in [*method.defaults, *method.model_defaults]:
        with _refused(f"a value of '{name}' of another type", UsageError, name):
            models.merge(method, {name: {}})


def _check_counts(method: MergeMethod) -> None:
    most = method.max_models or 5
    for count in range(method.min_models, most + 1):
        merged = _models(method, count).merge(method)
        assert merged.shape == SHAPE, f"{count} models give {tuple(merged.shape)}"
    if method.max_models:
        with _refused("one model too many", UsageError, method.name):
            _models(method, method.max_models + 1).merge(method)
    if method.min_models > 1:
        with _refused("one model too few", UsageError, method.name):
            _models(method, method.min_models - 1).merge(method)


def _check_statistics(method: MergeMethod) -> None:
    if not method.needs:
        return
    models = _models(method)
    assert models.statistics
    gap = models.replaced(statistics=(None, *models.statistics[1:]))
    with _refused("statistics of some models only", InputError, "'w'"):
        gap.merge(method)
    others = models.in_order(list(reversed(range(len(models.tensors))))).statistics
    merged, other = (m.merge(method) for m in (models, models.replaced(statistics=others)))
    assert _distance(merged, other) > CHANGE, "the statistics change nothing"


def _check_shapes(method: MergeMethod) -> None:
    for shape in ((), (1,), (8,), (3, 1), (1, 3), (2, 3, 4)):
        models = _models(method, shape=shape)
        merged = models.merge(method)
        assert merged.shape == shape, f"{shape} becomes {tuple(merged.shape)}"
        assert bool(merged.isfinite().all()), f"finite tensors of shape {shape} give {merged}"


def _check_precision(method: MergeMethod) -> None:
    models = _models(method)
    assert models.merge(method).dtype == torch.float64, "float64 is not kept"
    for dtype in (torch.float16, torch.bfloat16):
        narrow = models.to(dtype)
        merged, exact = narrow.merge(method), narrow.to(torch.float32).merge(method)
        assert merged.dtype == torch.float32, f"{dtype} gives {merged.dtype}: the caller casts"
        assert torch.equal(merged, exact), f"{dtype} is not added up in float32"
    mixed = models.replaced(tensors=(models.tensors[0].bfloat16(), *models.tensors[1:]))
    assert mixed.merge(method).dtype == torch.float32, "mixed types do not give float32"
    single = models.to(torch.float32)
    worst = _distance(single.merge(method), single.to(torch.float64).merge(method))
    assert worst < 1e-5, f"float32 is off float64 by {worst:.2g}"


def _check_streams(method: MergeMethod) -> None:
    """A tensor read in short parts, and arrays of numpy, give the same."""
    for trial in _trials(method):
        models = _models(method)
        whole = models.merge(method, trial)
        given = [*models.tensors, *([] if models.base is None else [models.base])]
        values = method.resolve(trial, len(models.tensors))
        for arrays in (given, [each.numpy() for each in given]):
            flat = [each.reshape(-1) for each in arrays]
            stream = Stream(flat, SHAPE, models.base is not None, size=11)
            context = TensorContext(name="w", statistics=models.statistics)
            kind = "torch" if arrays is given else "numpy"
            try:
                parts = [torch.as_tensor(part) for part in method.parts(stream, context, values)]
            except (AttributeError, TypeError) as error:
                raise AssertionError(f"it does not take arrays of {kind}: {error}") from error
            worst = _distance(torch.cat(parts).reshape(SHAPE), whole)
            assert worst <= TOLERANCE, f"in short parts of {kind} it is off by {worst:.2g}"


def _check_ranges(method: MergeMethod) -> None:
    models = _models(method)
    for name, declared in method.parameters.items():
        for value in _outside(declared):
            with _refused(f"'{name}' of {value!r}", UsageError, name):
                models.merge(method, {name: value})


def _outside(declared: Parameter) -> Iterator[Any]:
    """Values that a parameter says it cannot have."""
    if declared.choices:
        yield "no such choice"
    if declared.least is not None:
        yield type(declared.default)(declared.least - 1)
    if declared.above is not None:
        yield float(declared.above)
    if declared.most is not None:
        yield type(declared.default)(declared.most + 1)
    if declared.below is not None:
        yield float(declared.below)


def _check_inputs_untouched(method: MergeMethod) -> None:
    for parameters in ({}, *_keep_everything(method)):
        models = _models(method)
        inputs = [*models.tensors, *([] if models.base is None else [models.base])]
        before = [tensor.clone() for tensor in inputs]
        models.merge(method, parameters).fill_(float("nan"))
        same = [torch.equal(now, then) for now, then in zip(inputs, before, strict=True)]
        assert all(same), "an input is changed, or the result shares its memory"


def _keep_everything(method: MergeMethod) -> Iterator[dict[str, Any]]:
    """Parameters at which a method might hand an input through."""
    if "density" in method.model_defaults:
        yield {"density": 1.0}
    if "t" in method.defaults:
        yield {"t": 0.0}


def _check_no_change(method: MergeMethod) -> None:
    if not method.needs_base:
        return
    models = _models(method)
    still = models.replaced(tensors=(models.base,) * len(models.tensors))
    for trial in _trials(method):
        merged = still.merge(method, trial)
        assert _distance(merged, still.tensors[0]) <= TOLERANCE, "copies of the base change it"


def _check_bad_tensors(method: MergeMethod) -> None:
    models = _models(method)
    for value in (float("nan"), float("inf"), -float("inf")):
        bad = models.tensors[-1].clone()
        bad[0, 0] = value
        with _refused(str(value), InputError, "'w'"):
            models.replaced(tensors=(*models.tensors[:-1], bad)).merge(method)
    with _refused("whole numbers", InputError, "'w'"):
        models.to(torch.int64).merge(method)
    if method.max_models != 1:
        with _refused("another shape", InputError, "'w'"):
            models.replaced(tensors=(*models.tensors[:-1], models.tensors[-1].T)).merge(method)
    context = TensorContext()
    nothing = torch.zeros(0, 8)
    merged = method(
        [nothing] * len(models.tensors),
        base=nothing if method.needs_base else None,
        context=context,
    )
    assert merged.shape == (0, 8), "an empty tensor does not stay so"
    assert context.notes, "an empty tensor is not noted"


CHECKS: dict[str, Check] = {
    "description": _check_description,
    "order of models": _check_symmetric,
    "copies of one model": _check_idempotent,
    "endpoints": _check_endpoints,
    "merged in pieces": _check_elementwise,
    "base": _check_base,
    "randomness": _check_random,
    "parameters": _check_parameters,
    "ranges of parameters": _check_ranges,
    "read in parts": _check_streams,
    "number of models": _check_counts,
    "statistics": _check_statistics,
    "shapes": _check_shapes,
    "precision": _check_precision,
    "inputs untouched": _check_inputs_untouched,
    "copies of the base": _check_no_change,
    "bad tensors": _check_bad_tensors,
}
