"""Interpolation along great circles: SLERP, NuSLERP, multi-SLERP, Karcher mean.

All of them act on directions and lengths apart. Where tensors are nearly parallel or antipodal,
cosines are summed in float64, so that the case is decided by their values and not by rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from einops import einsum, rearrange

from repsim.core.errors import UsageError
from repsim.merging.base import TensorContext, merge_method, per_model
from repsim.merging.methods.averaging import weighted_sum

if TYPE_CHECKING:
    import torch

Tensors = Sequence["torch.Tensor"]

#: Norms at or below this count as zero.
TINY = 1e-8
#: Cosine beyond which `slerp` takes the straight line, as in mergekit.
NEARLY_PARALLEL = 0.9995
#: The same for `nuslerp`: an angle of 1e-7, where both lines agree to float64. (mergekit's bound,
#: 1 - cos^2 <= 1e-16, lies below the rounding of the cosine itself.)
PARALLEL = 1 - 5e-15
ZERO_NOTE = "a zero tensor has no direction: straight line taken"
ANTIPODAL_NOTE = (
    "antipodal tensors have no unique great circle: straight line taken, which passes near 0"
)
#: Elements that are widened to float64 at a time.
CHUNK = 1 << 20


def _row_cosines(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines of the rows of two matrices, float64, and which rows have no direction."""
    import torch

    norms = [torch.linalg.vector_norm(x, dim=1).to(torch.float64) for x in (a, b)]
    zero = torch.minimum(*norms) <= TINY
    lengths = torch.where(zero, 1.0, norms[0] * norms[1])
    cosine = einsum(a, b, "row i, row i -> row").to(torch.float64) / lengths
    if not bool((cosine.abs() > 0.999).any()):
        return cosine, zero
    # The angle of nearly parallel rows hangs on digits of the cosine that float32 lacks.
    products = torch.zeros(3, len(a), dtype=torch.float64, device=a.device)
    width = max(1, CHUNK // len(a))
    for x, y in zip(a.split(width, dim=1), b.split(width, dim=1), strict=True):
        wide = x.to(torch.float64), y.to(torch.float64)
        for index, (left, right) in enumerate(itertools.combinations_with_replacement(wide, 2)):
            products[index] += einsum(left, right, "row i, row i -> row")
    exact = (products[0] * products[2]).sqrt()
    return (products[1] / torch.where(zero, 1.0, exact)).clamp(-1, 1), zero


def _great_circle(
    a: torch.Tensor, b: torch.Tensor, t: float, context: TensorContext, parallel: float
) -> torch.Tensor:
    """Slerp of the rows of two matrices; the straight line where no great circle is unique."""
    import torch

    cosine, zero = _row_cosines(a, b)
    if bool(zero.any()):
        context.note(ZERO_NOTE)
    if bool((cosine <= -parallel).any()):
        context.note(ANTIPODAL_NOTE)
    straight = zero | (cosine.abs() >= parallel)
    angle = torch.acos(torch.where(straight, 0.0, cosine))
    shares = [
        torch.where(straight, share, torch.sin(share * angle) / torch.sin(angle)).to(a.dtype)
        for share in (1 - t, t)
    ]
    first, second = (rearrange(share, "row -> row 1") for share in shares)
    return (first * a).addcmul_(second, b)


def check_share(t: float, name: str) -> None:
    """Refuse a place outside the arc.

    Raises:
        UsageError: t is not in [0, 1].

    Example:
        >>> check_share(1.5, "norm")
        Traceback (most recent call last):
            ...
        repsim.core.errors.UsageError: slerp needs t in [0, 1], got 1.5 for tensor 'norm'
    """
    if not 0 <= t <= 1:
        raise UsageError(f"slerp needs t in [0, 1], got {t:g} for tensor '{name}'")


@merge_method(
    name="slerp",
    label="SLERP",
    definition="[sin((1-t) th) w_1 + sin(t th) w_2] / sin th, th the angle of the flattened "
    "tensors; straight line if |cos th| > 0.9995",
    reference="Shoemake 1985; mergekit",
    max_models=2,
    symmetric=False,
    idempotent=True,
    endpoints=True,
)
def slerp(
    tensors: Tensors, *, base: torch.Tensor | None, context: TensorContext, t: float = 0.5
) -> torch.Tensor:
    """Spherical interpolation from the first tensor (t = 0) to the second (t = 1).

    Raises:
        UsageError: t is not in [0, 1].
    """
    check_share(t, context.name)
    a, b = (x.reshape(1, -1) for x in tensors)
    return _great_circle(a, b, t, context, NEARLY_PARALLEL).reshape(tensors[0].shape)


@merge_method(
    name="nuslerp",
    label="NuSLERP",
    definition="slerp at t = a_2 / (a_1 + a_2), of the deltas if there is a base; straight line "
    "only within 1e-7 of parallel or antipodal",
    reference="mergekit",
    max_models=2,
    takes_base=True,
    idempotent=True,
    endpoints=True,
)
def nuslerp(
    tensors: Tensors,
    *,
    base: torch.Tensor | None,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    row_wise: bool = False,
    column_wise: bool = False,
) -> torch.Tensor:
    """SLERP by weights, of the whole tensor, of each row, or of each column for itself.

    A row runs along the last axis, a column along the first. (mergekit: `nuslerp_flatten: false`
    takes rows, and `nuslerp_row_wise: true` on top of it takes columns.)

    Raises:
        UsageError: Rows and columns are both asked for.
    """
    if row_wise and column_wise:
        raise UsageError("nuslerp can be row_wise or column_wise, not both")
    first, second = weight
    t = 0.5
    if abs(first + second) < 1e-6:
        context.note("the weights add up to zero: both models count the same")
    else:
        t = second / (first + second)
    if not 0 <= t <= 1:
        context.note(f"weights of both signs extrapolate beyond the models (t = {t:.3g})")
    a, b = (x - base if base is not None else x for x in tensors)
    if row_wise or column_wise:
        pattern = "... row -> (...) row" if row_wise else "column ... -> (...) column"
        rows = _great_circle(rearrange(a, pattern), rearrange(b, pattern), t, context, PARALLEL)
        other = a.shape[1:].numel()
        merged = rows.reshape(a.shape) if row_wise else rows.reshape(other, -1).T.reshape(a.shape)
    else:
        merged = _great_circle(a.reshape(1, -1), b.reshape(1, -1), t, context, PARALLEL)
    merged = merged.reshape(a.shape)
    return merged + base if base is not None else merged


def _exponential(m: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
    """Point reached from m on the unit sphere along a tangent."""
    length = tangent.norm()
    if float(length) == 0:
        return m
    return m * length.cos() + tangent * (length.sin() / length)


@merge_method(
    name="multislerp",
    label="multi-SLERP",
    definition="one step of the Karcher mean from the normalised weighted mean of directions, in "
    "its tangent plane by projection; times sum_i a_i |w_i|; of the deltas if there is a base",
    reference="mergekit (Goddard 2025)",
    takes_base=True,
    idempotent=True,
    endpoints=True,
)
def multislerp(
    tensors: Tensors,
    *,
    base: torch.Tensor | None,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    normalize_weights: bool = True,
) -> torch.Tensor:
    """Barycentric SLERP of any number of tensors.

    Raises:
        UsageError: The weights add up to zero, and are to be normalised.
    """
    weights = list(weight)
    if normalize_weights:
        total = sum(weights)
        if abs(total) < TINY:
            raise UsageError(
                f"the weights of tensor '{context.name}' add up to zero: no mean direction",
                hint="use other weights",
            )
        weights = [w / total for w in weights]
    flat = [(x - base if base is not None else x).flatten() for x in tensors]
    norms = [float(x.norm()) for x in flat]
    if min(norms) <= TINY:
        context.note("a zero tensor has no direction: it only shortens the result")
    directions = [x / n if n > TINY else 0 * x for x, n in zip(flat, norms, strict=True)]
    mean = weighted_sum(directions, weights)
    if float(mean.norm()) < TINY:
        context.note("directions cancel out: no mean direction, weighted sum taken")
        merged = weighted_sum(flat, weights)
    else:
        mean = mean / mean.norm()
        tangents = [u - u.dot(mean) * mean for u in directions]
        length = sum(w * norm for w, norm in zip(weights, norms, strict=True))
        merged = _exponential(mean, weighted_sum(tangents, weights)) * length
    merged = merged.reshape(tensors[0].shape)
    return merged + base if base is not None else merged


@merge_method(
    name="karcher",
    label="Karcher mean",
    definition="fixed point u of the mean of directions on the sphere (u <- exp_u(mean_i log_u "
    "u_i)), times the mean norm",
    reference="Karcher 1977; mergekit",
    idempotent=True,
)
def karcher(
    tensors: Tensors,
    *,
    base: torch.Tensor | None,
    context: TensorContext,
    max_iter: int = 10,
    tol: float = 1e-5,
) -> torch.Tensor:
    """Riemannian centre of mass of the directions, all with equal weight.

    Zero tensors have no direction; they shorten the result only.
    """
    flat = [x.flatten() for x in tensors]
    norms = [float(x.norm()) for x in flat]
    directions = [x / n for x, n in zip(flat, norms, strict=True) if n > TINY]
    if len(directions) < len(flat):
        context.note("a zero tensor has no direction: it only shortens the result")
    if not directions:
        return tensors[0].clone()
    centre = weighted_sum(directions, [1 / len(directions)] * len(directions))
    if float(centre.norm()) < tol:
        context.note("directions cancel out: no unique mean, started from the first model")
        centre = directions[0]
    centre = centre / centre.norm()
    for _ in range(max_iter):
        tangent = _mean_logarithm(centre, directions, context)
        if float(tangent.norm()) < tol:
            break
        centre = _exponential(centre, tangent)
        centre = centre / centre.norm()
    return (centre * (sum(norms) / len(norms))).reshape(tensors[0].shape)


def _mean_logarithm(
    centre: torch.Tensor, directions: Tensors, context: TensorContext
) -> torch.Tensor:
    """Mean over directions of the tangent that leads from the centre to each."""
    total = centre * 0
    for direction in directions:
        cosine = max(-1.0, min(1.0, float(centre.dot(direction))))
        angle = math.acos(cosine)
        if math.sin(angle) > TINY:
            total.add_(direction - cosine * centre, alpha=angle / math.sin(angle))
        elif cosine < 0:
            context.note("a direction is opposite to the mean: it has no shortest way, left out")
    return total / len(directions)
