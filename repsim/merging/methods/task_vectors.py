"""Arithmetic on differences to a base: task arithmetic and TIES."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from repsim.core.errors import UsageError
from repsim.merging.base import TensorContext, check_choice, merge_method, per_model
from repsim.merging.methods.averaging import weighted_sum
from repsim.merging.methods.selection import check_density, keep_from, keep_largest

if TYPE_CHECKING:
    import torch

Tensors = Sequence["torch.Tensor"]

#: Sums of weights of smaller magnitude count as zero: nothing is divided by them.
ZERO_WEIGHT = 1e-8
CANCELLED_NOTE = "the weights add up to zero: deltas added up, not averaged"
#: How mergekit scales a thinned tensor back, as against leaving it as it is.
Norm = Literal["none", "l1"]


def deltas_to(base: torch.Tensor, tensors: Tensors) -> list[torch.Tensor]:
    """Differences of the tensors to the base.

    Example:
        >>> import torch
        >>> [delta.tolist() for delta in deltas_to(torch.ones(2), [torch.tensor([1.0, 3.0])])]
        [[0.0, 2.0]]
    """
    return [tensor - base for tensor in tensors]


def same_norm(kept: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Scale a thinned delta back to the L1 norm that it had, as mergekit does.

    Example:
        >>> import torch
        >>> same_norm(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 2.0])).tolist()
        [0.0, 3.0]
    """
    norm = float(kept.abs().sum())
    return kept * (float(delta.abs().sum()) / norm) if norm > 0 else kept


def combine(
    deltas: Tensors,
    base: torch.Tensor,
    weights: Sequence[float],
    context: TensorContext,
    *,
    lambda_: float,
    normalize: bool,
    elect: bool,
) -> torch.Tensor:
    """Weight the deltas, merge them with or without sign election, and add them to the base.

    Example:
        >>> import torch
        >>> deltas = [torch.tensor([1.0, -1.0]), torch.tensor([3.0, 2.0])]
        >>> combine(deltas, torch.zeros(2), [1.0, 1.0], TensorContext(), lambda_=1.0,
        ...         normalize=True, elect=True).tolist()
        [2.0, 2.0]
    """
    if elect:
        weighted = [delta * weight for delta, weight in zip(deltas, weights, strict=True)]
        ones = [1.0] * len(deltas)
        merged = disjoint_merge(weighted, ones, weights if normalize else None, context)
        return merged.mul_(lambda_).add_(base)
    merged = weighted_sum(deltas, weights)
    total = sum(weights)
    if normalize and abs(total) < ZERO_WEIGHT:
        context.note(CANCELLED_NOTE)
    elif normalize:
        merged.div_(total)
    return merged.mul_(lambda_).add_(base)


def disjoint_merge(
    votes: Tensors,
    scales: Sequence[float],
    counts: Sequence[float] | None,
    context: TensorContext,
) -> torch.Tensor:
    """Elect a sign for each entry and merge the votes that have it.

    Args:
        votes: One tensor per model; zero entries neither vote nor count.
        scales: What the votes of each model are multiplied by once the sign is elected.
        counts: What each model that agrees adds to the divisor; None for a sum without divisor.
        context: Receives a note where the divisor is zero although models agree.

    Returns:
        Per entry, the sum of the scaled votes whose sign is that of the sum of all votes (positive
        at exactly zero), over the sum of their counts.

    Example:
        >>> import torch
        >>> votes = [torch.tensor([1.0, -1.0]), torch.tensor([3.0, 2.0])]
        >>> disjoint_merge(votes, [1.0, 1.0], [1.0, 1.0], TensorContext()).tolist()
        [2.0, 2.0]
    """
    import torch

    # 1 or -1 (adding 0 makes -0 positive); votes times their sign are positive exactly where they
    # agree with it.
    elected = weighted_sum(votes, [1.0] * len(votes)).add_(0.0)
    sign = torch.ones((), dtype=elected.dtype, device=elected.device).copysign(elected)
    total = torch.zeros_like(votes[0])
    divisor = torch.zeros_like(votes[0])
    for index, (vote, scale) in enumerate(zip(votes, scales, strict=True)):
        agreeing = (vote * sign).clamp_(min=0)
        total.add_(agreeing, alpha=scale)
        if counts is not None:
            divisor.add_(agreeing.sign_(), alpha=counts[index])
    total.mul_(sign)
    if counts is None:
        return total
    if min(counts) >= ZERO_WEIGHT:
        return total.div_(divisor.clamp_(min=ZERO_WEIGHT))
    empty = divisor.abs() < ZERO_WEIGHT
    # Only weights of both signs can cancel; then the sum stands, as where nobody agrees.
    if min(counts) < 0 and bool((empty & (total != 0)).any()):
        context.note("the weights that agree add up to zero in places: added up there, no average")
    return total.div_(divisor.add_(empty))


@merge_method(
    name="task_arithmetic",
    label="task arithmetic",
    definition="w_0 + lambda * sum_i a_i d_i, the sum divided by sum_i a_i if `normalize`",
    reference="Ilharco et al. 2023, arXiv:2212.04089",
    min_models=1,
    needs_base=True,
    elementwise=True,
    endpoints=True,
)
def task_arithmetic(
    tensors: Tensors,
    *,
    base: torch.Tensor,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    lambda_: float = 1.0,
    normalize: bool = False,
) -> torch.Tensor:
    """Weighted sum of the differences to the base."""
    deltas = deltas_to(base, tensors)
    return combine(
        deltas, base, weight, context, lambda_=lambda_, normalize=normalize, elect=False
    )  # fmt: skip


@merge_method(
    name="ties",
    label="TIES",
    definition="trim each d_i to its `density` largest entries, elect the sign of sum_i a_i d_i "
    "per entry (+ at zero), w_0 + lambda * weighted mean of the entries that agree",
    reference="Yadav et al. 2023, arXiv:2306.01708; per-tensor trim as in mergekit",
    min_models=1,
    needs_base=True,
)
def ties(
    tensors: Tensors,
    *,
    base: torch.Tensor,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    density: Sequence[float] = per_model(0.5),
    lambda_: float = 1.0,
    normalize: bool = True,
    scope: Literal["tensor", "model"] = "tensor",
    weighting: Literal["before", "after"] = "before",
    rescale: Norm = "none",
) -> torch.Tensor:
    """Trim, elect sign, disjoint merge.

    `scope="model"` trims by one threshold for the whole model, as the paper does, so that tensors
    that moved little are trimmed away; the execution finds the thresholds first.
    `weighting="after"` elects signs without the weights and divides by the number that agree
    (PEFT).

    Raises:
        UsageError: A density that is no share, or a choice that does not exist.
    """
    check_choice("scope", scope, ("tensor", "model"))
    check_choice("weighting", weighting, ("before", "after"))
    check_choice("rescale", rescale, ("none", "l1"))
    deltas = deltas_to(base, tensors)
    trimmed = _trim(deltas, density, context, whole_model=scope == "model")
    if rescale == "l1":
        trimmed = [same_norm(kept, delta) for kept, delta in zip(trimmed, deltas, strict=True)]
    if weighting == "before":
        return combine(
            trimmed, base, weight, context, lambda_=lambda_, normalize=normalize, elect=True
        )
    counts = [1.0] * len(trimmed) if normalize else None
    return disjoint_merge(trimmed, weight, counts, context).mul_(lambda_).add_(base)


def _trim(
    deltas: Tensors, density: Sequence[float], context: TensorContext, *, whole_model: bool
) -> list[torch.Tensor]:
    """Keep the entries of largest magnitude of the tensor, or of the whole model."""
    if whole_model:
        if context.thresholds is None:
            raise UsageError(
                "ties with scope 'model' needs the thresholds of the whole models",
                hint="merge whole models, or use scope: tensor",
            )
        cuts = zip(deltas, context.thresholds, strict=True)
        return [keep_from(delta, cut) for delta, cut in cuts]
    shares = [check_density(share, context.name) for share in density]
    return [keep_largest(delta, share) for delta, share in zip(deltas, shares, strict=True)]
