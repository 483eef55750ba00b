"""Task vectors thinned at random or by magnitude: DARE, DELLA, breadcrumbs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

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
    name: str,
    label: str,
    thinning: str,
    reference: str,
    function: Callable[..., torch.Tensor],
    *,
    elect: bool,
    random: bool = True,
    **defaults: Any,
) -> MergeMethod:
    """Register a way of thinning, followed by sign election or by plain addition.

    Args:
        name: Name in recipes.
        label: Name for people.
        thinning: What is done to each delta.
        reference: Source.
        function: The way of thinning; `elect` is its first argument.
        elect: Whether what is left is merged by elected signs.
        random: Whether it draws.
        **defaults: Defaults that differ from those of the function.
    """
    ending = "merged by elected signs as in TIES" if elect else "added up"
    return merge_method(
        name=name,
        label=label,
        definition=f"{thinning}; w_0 + lambda times what is left, weighted by a_i and {ending}",
        reference=reference,
        min_models=1,
        needs_base=True,
        # Each model draws from a stream of its own, so that their order matters.
        symmetric=not random,
        random=random,
    )(functools.partial(function, elect, **defaults))


def _deltas(
    tensors: Tensors, base: torch.Tensor, density: Sequence[float], context: TensorContext
) -> list[tuple[torch.Tensor, float]]:
    """The delta of each model, and the share of its entries that is to be kept."""
    shares = [check_density(share, context.name) for share in density]
    return list(zip(deltas_to(base, tensors), shares, strict=True))


# -- DARE ----------------------------------------------------------------------------------------


def drop_at_random(
    delta: torch.Tensor, density: float, rescale: Rescale, context: TensorContext, model: int
) -> torch.Tensor:
    """DARE: keep each entry with probability `density`, drawn from the stream of that model.

    Example:
        >>> import torch
        >>> kept = drop_at_random(torch.ones(1000), 0.25, "unbiased", TensorContext(), 0)
        >>> sorted(set(kept.tolist())), 200 < int(kept.count_nonzero()) < 300
        ([0.0, 4.0], True)
    """
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
    elect: bool,
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
    """Random thinning, then task arithmetic or sign election."""
    check_choice("rescale", rescale, ("unbiased", "l1", "none"))
    thin = [
        drop_at_random(delta, share, rescale, context, model)
        for model, (delta, share) in enumerate(_deltas(tensors, base, density, context))
    ]
    return combine(thin, base, weight, context, lambda_=lambda_, normalize=normalize, elect=elect)


dare_linear = _declare("dare_linear", "DARE (linear)", DARE, DARE_SOURCE, _dare, elect=False)
dare_ties = _declare("dare_ties", "DARE (TIES)", DARE, DARE_SOURCE, _dare, elect=True)


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

    Example:
        >>> import torch
        >>> delta = torch.arange(1.0, 1001.0)
        >>> kept = drop_by_rank(delta, 0.5, 0.4, "none", TensorContext(), 0) > 0
        >>> int(kept[:100].sum()) < 30, int(kept[-100:].sum()) > 70
        (True, True)
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
    elect: bool,
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
    """Thinning by rank of magnitude, then task arithmetic or sign election."""
    check_choice("rescale", rescale, ("unbiased", "l1", "none"))
    pairs = zip(_deltas(tensors, base, density, context), epsilon, strict=True)
    thin = [
        drop_by_rank(delta, share, spread, rescale, context, model)
        for model, ((delta, share), spread) in enumerate(pairs)
    ]
    return combine(thin, base, weight, context, lambda_=lambda_, normalize=normalize, elect=elect)


della = _declare("della", "DELLA", DELLA, DELLA_SOURCE, _della, elect=True)
della_linear = _declare(
    "della_linear", "DELLA (linear)", DELLA, DELLA_SOURCE, _della, elect=False, normalize=False
)


# -- breadcrumbs ---------------------------------------------------------------------------------


def drop_outliers(
    delta: torch.Tensor, density: float, gamma: float, context: TensorContext
) -> torch.Tensor:
    """Breadcrumbs: drop the largest magnitudes, then the smallest until `density` is left.

    As in mergekit, int(density * n) entries are kept come what may: if that leaves less to drop
    than `gamma` asks for, fewer large ones are dropped; at density 1 none.

    Raises:
        UsageError: gamma is not in [0, 1).

    Example:
        >>> import torch
        >>> drop_outliers(torch.tensor([1.0, -2.0, 3.0, -9.0]), 0.5, 0.25, TensorContext()).tolist()
        [0.0, -2.0, 3.0, -0.0]
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
    elect: bool,
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
    """Both ends of the magnitudes dropped, then task arithmetic or sign election."""
    check_choice("rescale", rescale, ("none", "l1"))
    thin = []
    for (delta, share), top in zip(_deltas(tensors, base, density, context), gamma, strict=True):
        kept = drop_outliers(delta, share, top, context)
        thin.append(same_norm(kept, delta) if rescale == "l1" else kept)
    return combine(thin, base, weight, context, lambda_=lambda_, normalize=normalize, elect=elect)


breadcrumbs = _declare(
    "breadcrumbs", "breadcrumbs", BREADCRUMBS, BREADCRUMBS_SOURCE, _breadcrumbs, elect=False,
    random=False,
)  # fmt: skip
breadcrumbs_ties = _declare(
    "breadcrumbs_ties", "breadcrumbs (TIES)", BREADCRUMBS, BREADCRUMBS_SOURCE, _breadcrumbs,
    elect=True, random=False,
)  # fmt: skip
