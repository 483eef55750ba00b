"""Methods that weigh by statistics of data: RegMean and Fisher averaging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from repsim.core.errors import InputError, UsageError
from repsim.merging.base import Gram, TensorContext, merge_method, per_model
from repsim.merging.methods.averaging import weighted_sum

if TYPE_CHECKING:
    import torch

Tensors = Sequence["torch.Tensor"]

#: Condition number beyond which the normal equations of RegMean are worth a word.
ILL_CONDITIONED = 1e8


def _statistics(context: TensorContext, models: int, what: str) -> list[Gram | torch.Tensor] | None:
    """One statistic per model, or None if this tensor has none.

    Raises:
        InputError: Some models have one and others have not.
    """
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
)
def regmean(
    tensors: Tensors,
    *,
    base: torch.Tensor | None,
    context: TensorContext,
    reduction: float = 0.9,
    ridge: float = 1e-6,
) -> torch.Tensor:
    """The linear map that best predicts the outputs of all models on their own inputs.

    Solved in float64. The ridge draws to the plain mean what no input decides; it is relative to
    the mean diagonal of the sum of the Gram matrices. `context.values` receives the `condition` of
    the system, which is noted where it is bad.

    Raises:
        InputError: Statistics of some models only, or of another shape than the weight.
        UsageError: `reduction` is not in [0, 1], `ridge` is negative or too small to solve.
    """
    import torch

    if not 0 <= reduction <= 1 or ridge < 0:
        raise UsageError(
            f"regmean needs reduction in [0, 1] and ridge >= 0, got {reduction:g} and {ridge:g}"
        )
    mean = weighted_sum(tensors, [1 / len(tensors)] * len(tensors))
    statistics = _statistics(context, len(tensors), "Gram matrices")
    if statistics is None:
        context.note("no Gram matrices: plain mean")
        return mean
    grams = [item if isinstance(item, Gram) else Gram(item) for item in statistics]
    _check_grams(grams, tensors[0], context.name)
    left, right = _normal_equations(grams, tensors, mean, reduction)
    scale = float(left.diagonal().mean())
    if scale == 0:
        context.note("no input ever reached this layer: plain mean")
        return mean
    left.diagonal().add_(ridge * scale)
    spectrum = torch.linalg.eigvalsh(left)
    least = float(spectrum[0])
    condition = float(spectrum[-1]) / least if least > 0 else float("inf")
    context.values["condition"] = condition
    if condition > ILL_CONDITIONED:
        context.note(f"normal equations are ill-conditioned ({condition:.0e}): raise ridge")
    if condition > 1 / torch.finfo(torch.float64).eps:
        raise UsageError(
            f"the Gram matrices of tensor '{context.name}' are singular and ridge is {ridge:g}",
            hint="raise ridge, or collect them from more text",
        )
    excess = torch.linalg.solve(left, right)
    return mean + excess.movedim(0, grams[0].input_axis).to(mean.dtype)


def _normal_equations(
    grams: Sequence[Gram], tensors: Tensors, mean: torch.Tensor, reduction: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both sides of the system for the excess over the mean, `[in, in]` and `[in, out]`, float64.

    What no input decides then stays at the mean exactly.
    """
    import torch

    axis = grams[0].input_axis
    left = torch.zeros_like(grams[0].matrix, dtype=torch.float64)
    right = torch.zeros_like(mean.movedim(axis, 0), dtype=torch.float64)
    for gram, tensor in zip(grams, tensors, strict=True):
        exact = gram.matrix.to(torch.float64)
        shrunk = reduction * exact + (1 - reduction) * torch.diag(exact.diagonal())
        left += shrunk
        right += shrunk @ (tensor.to(torch.float64) - mean.to(torch.float64)).movedim(axis, 0)
    return left, right


def _check_grams(grams: Sequence[Gram], weight: torch.Tensor, name: str) -> None:
    axes = {gram.input_axis for gram in grams}
    size = weight.shape[grams[0].input_axis] if weight.dim() == 2 else None
    shapes = {tuple(gram.matrix.shape) for gram in grams}
    if len(axes) > 1 or shapes != {(size, size)}:
        raise InputError(
            f"the Gram matrices of tensor '{name}' have shapes {sorted(shapes)} along axes "
            f"{sorted(axes)}, the weight has {tuple(weight.shape)}",
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
    tensors: Tensors,
    *,
    base: torch.Tensor | None,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
) -> torch.Tensor:
    """Average weighted entry by entry by how much each model's output depends on it.

    Entries that no output depends on (rows of tokens that the text lacks) get the plain mean.

    Raises:
        InputError: Fisher information is missing, negative, or of another shape than the tensor.
        UsageError: A weight is negative.
    """
    import torch

    if min(weight) < 0:
        raise UsageError(f"fisher needs weights of at least 0, got {min(weight):g}")
    information = _statistics(context, len(tensors), "Fisher information")
    if information is None:
        raise InputError(
            f"tensor '{context.name}' has no Fisher information",
            hint="collect it first; see repsim.merging.statistics.collect_fisher",
        )
    total = torch.zeros_like(tensors[0], dtype=torch.float64)
    mass = torch.zeros_like(total)
    for tensor, item, a in zip(tensors, information, weight, strict=True):
        share = a * _as_information(item, tensor, context.name)
        total.addcmul_(share, tensor.to(torch.float64))
        mass += share
    known = mass > 0
    mean = weighted_sum(tensors, [1 / len(tensors)] * len(tensors))
    if not bool(known.any()):
        context.note("no output depends on this tensor: plain mean")
    return torch.where(known, (total / torch.where(known, mass, 1.0)).to(mean.dtype), mean)


def _as_information(item: Gram | torch.Tensor, tensor: torch.Tensor, name: str) -> torch.Tensor:
    import torch

    if isinstance(item, Gram) or item.shape != tensor.shape:
        raise InputError(
            f"the Fisher information of tensor '{name}' does not have its shape "
            f"{tuple(tensor.shape)}",
            hint="collect it from the models that are merged",
        )
    exact = item.to(torch.float64)
    if not bool((exact >= 0).all()) or not bool(exact.isfinite().all()):
        raise InputError(f"the Fisher information of tensor '{name}' is negative or not finite")
    return exact
