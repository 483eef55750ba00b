"""Methods that weigh by how far the models agree: model stock and SCE."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from einops import einsum, rearrange

from repsim.core.errors import UsageError
from repsim.merging.base import TensorContext, merge_method
from repsim.merging.methods.averaging import weighted_sum
from repsim.merging.methods.selection import largest
from repsim.merging.methods.task_vectors import deltas_to

if TYPE_CHECKING:
    import torch

Tensors = Sequence["torch.Tensor"]

#: Denominators of model stock below this are singular, as in mergekit.
SINGULAR = 1e-6


@merge_method(
    name="model_stock",
    label="model stock",
    definition="t mean_i w_i + (1 - t) w_0, t = N c / (1 + (N - 1) c), c the mean pairwise "
    "cosine of the deltas; t clamped to [0, 1] unless `clamp: false`",
    reference="Jang et al. 2024, arXiv:2403.19522",
    needs_base=True,
    idempotent=True,
)
def model_stock(
    tensors: Tensors,
    *,
    base: torch.Tensor,
    context: TensorContext,
    clamp: bool = True,
    filter_wise: bool = False,
) -> torch.Tensor:
    """Step from the base towards the average by how well the deltas agree.

    A negative cosine (deltas that point apart) makes t negative without the clamp: at c = -0.9 and
    two models the result would lie 18 deltas beyond the base. `filter_wise` finds one t per row
    (last axis). `context.values` receives the mean `t` and `cosine`.
    """
    import torch

    deltas = deltas_to(base, tensors)
    pattern = "... row -> (...) row" if filter_wise and base.dim() else "... -> 1 (...)"
    cosine = _mean_cosine([rearrange(delta, pattern) for delta in deltas], context)
    n = len(deltas)
    denominator = 1 + (n - 1) * cosine
    singular = denominator.abs() < SINGULAR
    if bool(singular.any()):
        context.note("the deltas cancel out: the base is kept")
    t = torch.where(singular, 0.0, n * cosine / torch.where(singular, 1.0, denominator))
    context.values.update(t=float(t.mean()), cosine=float(cosine.mean()))
    if bool(((t < 0) | (t > 1)).any()):
        what = f"the deltas point apart (mean cosine {float(cosine.mean()):.2f})"
        if clamp:
            context.note(f"{what}: t clamped to [0, 1], least {float(t.min()):.3g}")
            t = t.clamp(0, 1)
        else:
            context.note(f"{what}: t = {float(t.min()):.3g} leads away from them")
    mean_delta = rearrange(weighted_sum(deltas, [1 / n] * n), pattern)
    step = mean_delta * rearrange(t, "row -> row 1").to(base.dtype)
    return base + step.reshape(base.shape)


def _mean_cosine(rows: Tensors, context: TensorContext) -> torch.Tensor:
    """Mean over pairs of models of the cosine of their rows, float64; 0 for zero rows."""
    import torch

    wide = [row.to(torch.float64) for row in rows]
    norms = [torch.linalg.vector_norm(row, dim=1) for row in wide]
    if any(bool((norm == 0).any()) for norm in norms):
        context.note("a delta is zero: its cosine is taken as 0")
    units = [
        row / rearrange(torch.where(norm == 0, 1.0, norm), "row -> row 1")
        for row, norm in zip(wide, norms, strict=True)
    ]
    pairs = list(itertools.combinations(units, 2))
    cosines = [einsum(a, b, "row i, row i -> row") for a, b in pairs]
    return (torch.stack(cosines).sum(0) / len(cosines)).clamp(-1, 1)


@merge_method(
    name="sce",
    label="SCE",
    definition="keep the `select_topk` share of positions of largest variance over models; weight "
    "each model by its mean squared delta there; drop entries m_i against the sign of sum_i d_i; "
    "w_0 + sum_i(a_i d_i m_i) / sum_i(a_i m_i)",
    reference="Wan et al. 2024 (FuseChat), arXiv:2408.07990; mergekit",
    needs_base=True,
    idempotent=True,
)
def sce(
    tensors: Tensors,
    *,
    base: torch.Tensor,
    context: TensorContext,
    select_topk: float = 1.0,
) -> torch.Tensor:
    """Select, calculate, erase.

    Identical models have no variance to select by: their common delta is taken whole, and noted
    (mergekit gives the base back). The weights are found in float64, so that deltas of fine-tuning
    size keep them (mergekit falls back to equal weights below a mean square of 1e-6).

    Raises:
        UsageError: `select_topk` is not in (0, 1].
    """
    import torch

    if not 0 < select_topk <= 1:
        raise UsageError(f"select_topk must lie in (0, 1], got {select_topk:g}")
    deltas = torch.stack(deltas_to(base, tensors))
    if select_topk < 1:
        variance = deltas.var(dim=0, unbiased=False)
        kept = int(select_topk * int(variance.count_nonzero()))
        if not bool(variance.any()):
            context.note("the models are identical here: their common delta is taken whole")
            return base + deltas[0]
        if kept == 0:
            context.note("select_topk keeps no entry of so small a tensor: the base is kept")
        deltas *= largest(variance, kept)
    squares = rearrange(deltas.to(torch.float64).square(), "model ... -> model (...)").mean(1)
    if not bool(squares.any()):
        return base.clone()
    weights = (squares / squares.sum()).to(base.dtype)
    positive = deltas.sum(0) >= 0
    total, share = torch.zeros_like(base), torch.zeros_like(base)
    for delta, weight in zip(deltas, weights, strict=True):
        agrees = torch.where(positive, delta > 0, delta < 0)
        total.add_(delta * agrees * weight)
        share.add_(agrees * weight)
    return base + total / share.masked_fill_(share == 0, 1.0)
