"""Weighted average, and no merge at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from repsim.core.errors import UsageError
from repsim.merging.arrays import Array, Stream, weighted_sum
from repsim.merging.base import TensorContext, merge_method
from repsim.merging.parameters import per_model


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
    stream: Stream,
    *,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    normalize: bool = True,
) -> Iterator[Array]:
    """Weighted average; weights that add up to zero are refused."""
    total = sum(weight)
    if normalize and abs(total) < 1e-8:
        raise UsageError(
            f"the weights of tensor '{context.name}' add up to {total:g}: no average",
            hint="use other weights, or normalize: false for a plain sum",
        )
    for part in stream.parts():
        merged = weighted_sum(part.tensors, weight)
        if normalize:
            merged /= total
        yield merged


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
def passthrough(stream: Stream, *, context: TensorContext, scale: float = 1.0) -> Iterator[Array]:
    """The tensor of one model as it is: for stacking layers of several models."""
    for part in stream.parts():
        yield part.tensors[0] * scale
