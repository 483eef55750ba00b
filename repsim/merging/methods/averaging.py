"""Weighted average, and no merge at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from repsim.core.errors import UsageError
from repsim.merging.base import TensorContext, merge_method, per_model

if TYPE_CHECKING:
    import torch

Tensors = Sequence["torch.Tensor"]


def weighted_sum(tensors: Tensors, weights: Sequence[float]) -> torch.Tensor:
    """Sum of `w_i * tensor_i`, accumulated in place.

    Example:
        >>> import torch
        >>> weighted_sum([torch.ones(2), torch.tensor([1.0, 2.0])], [0.5, 2.0]).tolist()
        [2.5, 4.5]
    """
    total = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total.add_(tensor, alpha=weight)
    return total


def divisor_of(weights: Sequence[float], name: str) -> float:
    """Sum of the weights of an average.

    Raises:
        UsageError: It is zero.

    Example:
        >>> divisor_of([1.0, 3.0], "norm")
        4.0
    """
    total = sum(weights)
    if abs(total) < 1e-8:
        raise UsageError(
            f"the weights of tensor '{name}' add up to {total:g}: no average",
            hint="use other weights, or normalize: false for a plain sum",
        )
    return total


@merge_method(
    name="linear",
    label="linear average",
    definition="sum_i a_i w_i, divided by sum_i a_i if `normalize`",
    reference="Utans 1996; Wortsman et al. 2022 (model soups)",
    idempotent=True,
    endpoints=True,
    elementwise=True,
)
def linear(
    tensors: Tensors,
    *,
    base: torch.Tensor | None,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    normalize: bool = True,
) -> torch.Tensor:
    """Weighted average of the tensors.

    Raises:
        UsageError: The weights add up to zero, and an average is asked for.
    """
    divisor = divisor_of(weight, context.name) if normalize else None
    merged = weighted_sum(tensors, weight)
    return merged if divisor is None else merged.div_(divisor)


@merge_method(
    name="passthrough",
    label="passthrough",
    definition="w_1, times `scale`",
    reference="mergekit",
    min_models=1,
    max_models=1,
    idempotent=True,
    elementwise=True,
)
def passthrough(
    tensors: Tensors, *, base: torch.Tensor | None, context: TensorContext, scale: float = 1.0
) -> torch.Tensor:
    """The tensor of one model as it is: for stacking layers of several models."""
    return tensors[0] * scale if scale != 1.0 else tensors[0].clone()
