"""Task vectors thinned at random or by magnitude: DARE, DELLA, breadcrumbs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from repsim.core.errors import UsageError
from repsim.merging.base import MergeMethod, TensorContext, check_choice, merge_method, per_model
from repsim.merging.methods.selection import check_density, largest, ranks
from repsim.merging.methods.task_vectors import Norm, combine, deltas_to, same_norm

if TYPE_CHECKING:
    import torch

Tensors = Sequence["torch.Tensor"]

#: How what was dropped at random is made up for. `unbiased` (the papers): each entry over its
#: probability of being kept, so that its expectation is the original. `l1` (mergekit): the whole
#: tensor back to its L1 norm, biased towards small entries and unstable on small tensors.
Rescale = Literal["unbiased", "l1", "none"]

DARE = "drop entries of d_i at random with probability 1 - q, rescale by 1/q"
DARE_SOURCE = "Yu et al. 2024, arXiv:2311.03099"
DELLA = (
    "keep entries of d_i with a probability from q - eps (smallest of its row) to q + eps "
    "(largest), each over its probability"
)
DELLA_SOURCE = "Deep et al. 2024, arXiv:2406.11617"
BREADCRUMBS = "drop the gamma share of largest entries of d_i and the smallest down to density q"
BREADCRUMBS_SOURCE = "Davari and Belilovsky 2023, arXiv:2312.06795; mergekit"


def _declare(
    name: str, label: str, thinning: str, reference: str, *, random: bool
) -> Callable[[Callable[..., torch.Tensor]], MergeMethod]:
    elect = name.endswith("ties") or name == "della"
    return merge_method(
        name=name,
        label=label,
        definition=f"{thinning}; w_0 + lambda times what is left, weighted by a_i and "
        + ("merged by elected signs as in TIES" if elect else "added up"),
        reference=reference,
        min_models=1,
        needs_base=True,
        # Each model draws from a stream of its own, so that their order matters.
        symmetric=not random,
        random=random,
    )


# -- DARE ----------------------------------------------------------------------------------------


def drop_at_random(
    delta: torch.Tensor, density: float, rescale: Rescale, context: TensorContext, model: int
) -> torch.Tensor:
    """DARE: keep each entry with probability `density`, drawn from the stream of that model."""
    import torch

    if density == 1:
        return delta
    return _kept_at_random(
        delta, torch.tensor(density, dtype=torch.float64), rescale, context, model
    )


def _kept_at_random(
    delta: torch.Tensor,
    probability: torch.Tensor,
    rescale: Rescale,
    context: TensorContext,
    model: int,
) -> torch.Tensor:
    import torch

    draw = torch.rand(delta.shape, generator=context.generator(model), dtype=torch.float32)
    probability = probability.to(delta)
    kept = delta * (draw.to(delta.device) < probability)
    if bool(delta.any()) and not bool(kept.any()):
        context.note("every entry of a delta was dropped at random: that model adds nothing here")
    if rescale == "unbiased":
        return kept / probability
    return same_norm(kept, delta) if rescale == "l1" else kept


def _dare(
    tensors: Tensors,
    base: torch.Tensor,
    context: TensorContext,
    density: Sequence[float],
    rescale: Rescale,
) -> list[torch.Tensor]:
    check_choice("rescale", rescale, ("unbiased", "l1", "none"))
    shares = [check_density(share, context.name) for share in density]
    deltas = deltas_to(base, tensors)
    return [
        drop_at_random(delta, share, rescale, context, model)
        for model, (delta, share) in enumerate(zip(deltas, shares, strict=True))
    ]


@_declare("dare_linear", "DARE (linear)", DARE, DARE_SOURCE, random=True)
def dare_linear(
    tensors: Tensors,
    *,
    base: torch.Tensor,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    density: Sequence[float] = per_model(0.5),
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: Rescale = "unbiased",
) -> torch.Tensor:
    """Random thinning, then task arithmetic."""
    thin = _dare(tensors, base, context, density, rescale)
    return combine(thin, base, weight, context, lambda_=lambda_, normalize=normalize, elect=False)


@_declare("dare_ties", "DARE (TIES)", DARE, DARE_SOURCE, random=True)
def dare_ties(
    tensors: Tensors,
    *,
    base: torch.Tensor,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    density: Sequence[float] = per_model(0.5),
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: Rescale = "unbiased",
) -> torch.Tensor:
    """Random thinning, then sign election."""
    thin = _dare(tensors, base, context, density, rescale)
    return combine(thin, base, weight, context, lambda_=lambda_, normalize=normalize, elect=True)


# -- DELLA ---------------------------------------------------------------------------------------


def drop_by_rank(
    delta: torch.Tensor,
    density: float,
    epsilon: float,
    rescale: Rescale,
    context: TensorContext,
    model: int,
) -> torch.Tensor:
    """DELLA: the probability of keeping rises with the rank of the magnitude within its row.

    It runs linearly from `density - epsilon` (smallest) to `density + epsilon` (largest). A row of
    one entry has no rank and is kept with probability `density`. Density 1 keeps everything.

    Raises:
        UsageError: Those probabilities leave (0, 1).
    """
    import torch

    if density == 1:
        return delta
    if density - abs(epsilon) <= 0 or density + abs(epsilon) >= 1:
        raise UsageError(
            f"della needs 0 < density ± epsilon < 1, got {density:g} ± {epsilon:g}",
            hint="lower epsilon (its default is 0.15)",
        )
    rows = delta.reshape(-1, delta.shape[-1]) if delta.dim() else delta.reshape(1, 1)
    if rows.shape[1] > 1:
        share = ranks(rows.abs()).to(rows.dtype) / (rows.shape[1] - 1)
    else:
        context.note("rows of one entry have no rank: kept with probability density")
        share = torch.full_like(rows, 0.5)
    probability = density - epsilon + 2 * epsilon * share
    return _kept_at_random(rows, probability, rescale, context, model).reshape(delta.shape)


def _della(
    tensors: Tensors,
    base: torch.Tensor,
    context: TensorContext,
    density: Sequence[float],
    epsilon: Sequence[float],
    rescale: Rescale,
) -> list[torch.Tensor]:
    check_choice("rescale", rescale, ("unbiased", "l1", "none"))
    shares = [check_density(share, context.name) for share in density]
    deltas = deltas_to(base, tensors)
    return [
        drop_by_rank(delta, share, spread, rescale, context, model)
        for model, (delta, share, spread) in enumerate(zip(deltas, shares, epsilon, strict=True))
    ]


@_declare("della", "DELLA", DELLA, DELLA_SOURCE, random=True)
def della(
    tensors: Tensors,
    *,
    base: torch.Tensor,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    density: Sequence[float] = per_model(0.5),
    epsilon: Sequence[float] = per_model(0.15),
    lambda_: float = 1.0,
    normalize: bool = True,
    rescale: Rescale = "unbiased",
) -> torch.Tensor:
    """Thinning by rank of magnitude, then sign election."""
    thin = _della(tensors, base, context, density, epsilon, rescale)
    return combine(thin, base, weight, context, lambda_=lambda_, normalize=normalize, elect=True)


@_declare("della_linear", "DELLA (linear)", DELLA, DELLA_SOURCE, random=True)
def della_linear(
    tensors: Tensors,
    *,
    base: torch.Tensor,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    density: Sequence[float] = per_model(0.5),
    epsilon: Sequence[float] = per_model(0.15),
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: Rescale = "unbiased",
) -> torch.Tensor:
    """Thinning by rank of magnitude, then task arithmetic."""
    thin = _della(tensors, base, context, density, epsilon, rescale)
    return combine(thin, base, weight, context, lambda_=lambda_, normalize=normalize, elect=False)


# -- breadcrumbs ---------------------------------------------------------------------------------


def drop_outliers(
    delta: torch.Tensor, density: float, gamma: float, context: TensorContext
) -> torch.Tensor:
    """Breadcrumbs: drop the largest magnitudes, then the smallest until `density` is left.

    As in mergekit, int(density * n) entries are kept come what may: if that leaves less to drop
    than `gamma` asks for, fewer large ones are dropped; at density 1 none.

    Raises:
        UsageError: gamma is not in [0, 1).
    """
    if not 0 <= gamma < 1:
        raise UsageError(f"gamma must lie in [0, 1), got {gamma:g} for tensor '{context.name}'")
    n = delta.numel()
    kept, top = int(density * n), int(gamma * n)
    if kept + top > n:
        context.note("fewer large entries dropped than gamma asks for: density would not be kept")
        top = n - kept
    if kept == 0:
        context.note("density keeps no entry of so small a tensor: that model adds nothing here")
    size = delta.abs()
    return delta * (largest(size, kept + top) & ~largest(size, top))


def _breadcrumbs(
    tensors: Tensors,
    base: torch.Tensor,
    context: TensorContext,
    density: Sequence[float],
    gamma: Sequence[float],
    rescale: Norm,
) -> list[torch.Tensor]:
    check_choice("rescale", rescale, ("none", "l1"))
    shares = [check_density(share, context.name) for share in density]
    deltas = deltas_to(base, tensors)
    thinned = [
        drop_outliers(delta, share, top, context)
        for delta, share, top in zip(deltas, shares, gamma, strict=True)
    ]
    if rescale == "none":
        return thinned
    return [same_norm(kept, delta) for kept, delta in zip(thinned, deltas, strict=True)]


@_declare("breadcrumbs", "breadcrumbs", BREADCRUMBS, BREADCRUMBS_SOURCE, random=False)
def breadcrumbs(
    tensors: Tensors,
    *,
    base: torch.Tensor,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    density: Sequence[float] = per_model(0.9),
    gamma: Sequence[float] = per_model(0.01),
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: Norm = "none",
) -> torch.Tensor:
    """Both ends of the magnitudes dropped, then task arithmetic."""
    thin = _breadcrumbs(tensors, base, context, density, gamma, rescale)
    return combine(thin, base, weight, context, lambda_=lambda_, normalize=normalize, elect=False)


@_declare("breadcrumbs_ties", "breadcrumbs (TIES)", BREADCRUMBS, BREADCRUMBS_SOURCE, random=False)
def breadcrumbs_ties(
    tensors: Tensors,
    *,
    base: torch.Tensor,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    density: Sequence[float] = per_model(0.9),
    gamma: Sequence[float] = per_model(0.01),
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: Norm = "none",
) -> torch.Tensor:
    """Both ends of the magnitudes dropped, then sign election."""
    thin = _breadcrumbs(tensors, base, context, density, gamma, rescale)
    return combine(thin, base, weight, context, lambda_=lambda_, normalize=normalize, elect=True)
