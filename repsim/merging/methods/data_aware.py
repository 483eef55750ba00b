"""Methods that weigh by statistics of data: RegMean and Fisher averaging."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from repsim.core.errors import InputError, UsageError
from repsim.merging.arrays import (
    Array,
    Stream,
    cast,
    is_finite,
    kind_of_array,
    like,
    mean_of,
    namespace,
    weighted_sum,
)
from repsim.merging.base import Gram, TensorContext, merge_method
from repsim.merging.parameters import parameter, per_model

#: Condition number beyond which the normal equations of RegMean are worth a word.
_ILL_CONDITIONED = 1e8


def _statistics(context: TensorContext, models: int, what: str) -> list[Any] | None:
    """One statistic per model; None if this tensor has none, an error if only some models have."""
    given = context.statistics
    if given is None or all(item is None for item in given):
        return None
    present = [item for item in given if item is not None]
    if len(present) != models:
        raise InputError(
            f"tensor '{context.name}' has {what} for {len(present)} of {models} models",
            hint="collect them for every model on its own text",
        )
    return present


@merge_method(
    name="regmean",
    label="RegMean",
    definition="W = (sum_i G_i' + r I)^-1 (sum_i G_i' W_i + r mean_i W_i), W as [in, out], G_i the "
    "second moments of the inputs of model i, G' with off-diagonal entries times `reduction`, "
    "r = `ridge` times the mean diagonal; plain mean for tensors without inputs",
    reference="Jin et al. 2023, arXiv:2212.09849",
    needs="gram",
    idempotent=True,
    gpu=True,
)
def regmean(
    stream: Stream,
    *,
    context: TensorContext,
    reduction: float = parameter(0.9, least=0, most=1),
    ridge: float = parameter(1e-6, least=0),
) -> Iterator[Array]:
    """The linear map that best predicts the outputs of all models on their own inputs."""
    statistics = _statistics(context, stream.models, "Gram matrices")
    if statistics is None:
        context.note("no Gram matrices: plain mean")
        yield from mean_of(stream)
        return
    grams = [item if isinstance(item, Gram) else Gram(item) for item in statistics]
    _check_grams(grams, stream.shape, context.name)
    mean = stream.gathered(mean_of(stream))
    left, right = _normal_equations(grams, stream, mean, reduction)
    diagonal = list(range(len(left)))
    scale = float(left[diagonal, diagonal].mean())
    if scale == 0:
        context.note("no input ever reached this layer: plain mean")
        yield mean.reshape(-1)
        return
    left[diagonal, diagonal] += ridge * scale
    xp = namespace(left)
    if is_finite(left):
        _check_condition(xp.linalg.eigvalsh(left), ridge, context)
    excess = xp.moveaxis(xp.linalg.solve(left, right), 0, grams[0].input_axis)
    yield (mean + cast(excess, kind_of_array(mean))).reshape(-1)


def _check_condition(spectrum: Array, ridge: float, context: TensorContext) -> None:
    least = float(spectrum[0])
    condition = float(spectrum[-1]) / least if least > 0 else float("inf")
    context.values["condition"] = condition
    if condition > _ILL_CONDITIONED:
        context.note(f"normal equations are ill-conditioned ({condition:.0e}): raise ridge")
    if condition > 1 / np.finfo(np.float64).eps:
        raise UsageError(
            f"the Gram matrices of tensor '{context.name}' are singular and ridge is {ridge:g}",
            hint="raise ridge, or collect them from more text",
        )


def _normal_equations(
    grams: Sequence[Gram], stream: Stream, mean: Array, reduction: float
) -> tuple[Array, Array]:
    """Both sides of the system for the excess over the mean: no input, no excess."""
    xp, axis = namespace(mean), grams[0].input_axis
    left: Any = 0.0
    right: Any = 0.0
    for model, gram in enumerate(grams):  # one model at a time is held in float64
        exact = cast(like(gram.matrix, mean), "float64")
        shrunk = reduction * exact + (1 - reduction) * xp.diag(xp.diagonal(exact))
        excess = cast(stream.whole(model), "float64") - cast(mean, "float64")
        left = left + shrunk
        right = right + shrunk @ xp.moveaxis(excess, axis, 0)
    return left, right


def _check_grams(grams: Sequence[Gram], shape: tuple[int, ...], name: str) -> None:
    axes = {gram.input_axis for gram in grams}
    size = shape[grams[0].input_axis] if len(shape) == 2 else None
    shapes = {tuple(gram.matrix.shape) for gram in grams}
    if len(axes) > 1 or shapes != {(size, size)}:
        raise InputError(
            f"the Gram matrices of tensor '{name}' have shapes {sorted(shapes)} along axes "
            f"{sorted(axes)}, the weight has {shape}",
            hint="collect them from the models that are merged",
        )


@merge_method(
    name="fisher",
    label="Fisher average",
    definition="sum_i a_i F_i w_i / sum_i a_i F_i per entry, F_i the diagonal Fisher information "
    "E_x E_{y ~ p(y|x)} (d log p(y|x) / d w)^2; plain mean where all a_i F_i vanish",
    reference="Matena and Raffel 2022, arXiv:2111.09832",
    needs="fisher",
    idempotent=True,
    elementwise=True,
    endpoints=True,
)
def fisher(
    stream: Stream, *, context: TensorContext, weight: Sequence[float] = per_model(1.0, least=0)
) -> Iterator[Array]:
    """Average weighted entry by entry by how much each model's output depends on it."""
    information = _statistics(context, stream.models, "Fisher information")
    if information is None:
        raise InputError(
            f"tensor '{context.name}' has no Fisher information",
            hint="collect it first; see repsim.merging.statistics.collect_fisher",
        )
    flat = [_as_information(item, stream.shape, context.name) for item in information]
    known_at_all = False
    for part in stream.parts():
        total: Any = 0.0
        mass: Any = 0.0
        for tensor, item, a in zip(part.tensors, flat, weight, strict=True):
            share = a * cast(like(item[part.start : part.stop], tensor), "float64")
            total = total + share * cast(tensor, "float64")
            mass = mass + share
        known = mass > 0
        known_at_all = known_at_all or bool(known.any())
        merged = weighted_sum(part.tensors, [1 / stream.models] * stream.models)
        # A copy of the mean where it is known: NaN in a tensor that nothing depends on stays seen.
        merged[known] = cast(total[known] / mass[known], kind_of_array(merged))
        yield merged
    if not known_at_all:
        context.note("no output depends on this tensor: plain mean")


def _as_information(item: Any, shape: tuple[int, ...], name: str) -> Array:
    if isinstance(item, Gram) or tuple(item.shape) != shape:
        raise InputError(
            f"the Fisher information of tensor '{name}' does not have its shape {shape}",
            hint="collect it from the models that are merged",
        )
    if not is_finite(item) or not bool((item >= 0).all()):
        raise InputError(f"the Fisher information of tensor '{name}' is negative or not finite")
    return item.reshape(-1)
